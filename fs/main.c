/* dfs: one binary for masters, block servers, mounts and operators. */
#include "fs/cli/cli.h"

int main(int argc, char **argv)
{
    return cli_main(argc, argv);
}
