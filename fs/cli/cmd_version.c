#include "cluster/base/json.h"
#include "cluster/base/version.h"
#include "cluster/msgs.h"

#include "fs/cli/cli.h"

int cmd_version(struct cli *cli, int argc, char **argv)
{
    const struct opt opts[] = { OPT_END };

    if (!cli_begin(cli, argc, argv, opts, 0, 0)) {
        return cli->status;
    }
    if (cli->json) {
        struct json j = json_to(stdout);

        json_object(&j, NULL);
        json_str(&j, "version", DFS_VERSION);
        json_num(&j, "protocol", DFS_PROTOCOL);
        json_end(&j);
    } else {
        printf("dfs %s (protocol %d)\n", DFS_VERSION, DFS_PROTOCOL);
    }
    return CLI_DONE;
}
