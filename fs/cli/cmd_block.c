#include "cluster/base/err.h"

#include "fs/cli/cli.h"
#include "fs/role/block_server.h"

int cmd_block(struct cli *cli, int argc, char **argv)
{
    const struct opt opts[] = { OPT_END };
    struct why why = { "" };

    if (!cli_begin(cli, argc, argv, opts, 0, 0)) {
        return cli->status;
    }
    return block_server_run(cli->conf, &why) != 0 ? cli_error(cli, "%s", why.text) : CLI_DONE;
}
