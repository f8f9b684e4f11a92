/* main() of a fuzz target built without libFuzzer: feeds it every file of its corpus.
 *
 * The corpus is test/fuzz/corpus/<name of the program>; files may be named instead. */
#include "cluster/base/base.h"

#include <dirent.h>
#include <libgen.h>

#include "cluster/base/io.h"

#include "test/unit/tap.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static bool replay(const char *path)
{
    struct why why;
    char *text;
    size_t len;
    uint8_t *exact;

    if (io_read_file(path, 1 << 20, &text, &len, &why) != 0) {
        printf("# %s\n", why.text);
        return false;
    }
    exact = x_alloc(len); /* so that a read beyond the end is seen */
    memcpy(exact, text, len);
    free(text);
    printf("# %s\n", path);
    fflush(stdout); /* tells which one it was when the next call does not return */
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    return true;
}

static const char *program;
static int given_count;
static char **given;

static void replay_all(void)
{
    char dir[256];
    DIR *d;
    struct dirent *e;
    int n = 0;

    for (int i = 0; i < given_count; i++) {
        CHECK(replay(given[i]));
    }
    if (given_count > 0) {
        return;
    }
    snprintf(dir, sizeof(dir), "test/fuzz/corpus/%s", program);
    d = opendir(dir);
    CHECK(d != NULL);
    while (d != NULL && (e = readdir(d)) != NULL) {
        char path[600];

        if (e->d_name[0] == '.') {
            continue;
        }
        snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
        CHECK(replay(path));
        n++;
    }
    if (d != NULL) {
        closedir(d);
    }
    CHECK(n > 0);
}

int main(int argc, char **argv)
{
    program = basename(argv[0]);
    given_count = argc - 1;
    given = argv + 1;
    tap_run("the corpus passes", replay_all);
    return tap_done();
}
