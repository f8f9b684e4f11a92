#include "cluster/base/err.h"

#include "fs/cli/cli.h"
#include "fs/role/master.h"

int cmd_master(struct cli *cli, int argc, char **argv)
{
    const struct opt opts[] = { OPT_END };
    struct why why = { "" };

    if (!cli_begin(cli, argc, argv, opts, 0, 0)) {
        return cli->status;
    }
    return master_run(cli->conf, cli->conf_path, &why) != DFS_OK ? cli_error(cli, "%s", why.text)
                                                                 : CLI_DONE;
}
