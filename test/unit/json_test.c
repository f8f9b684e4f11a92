#include "cluster/base/json.h"

#include <math.h>

#include "test/unit/tap.h"

static char *text;
static size_t len;
static FILE *to;

static struct json begin(void)
{
    to = open_memstream(&text, &len);
    return json_to(to);
}

static void check(const char *want)
{
    fclose(to);
    CHECK_STR(text, want);
    free(text);
}

static void documents_nest(void)
{
    struct json j = begin();

    json_object(&j, NULL);
    json_str(&j, "name", "a");
    json_array(&j, "copies");
    json_num(&j, NULL, UINT64_MAX);
    json_int(&j, NULL, -1);
    json_object(&j, NULL);
    json_end(&j);
    json_end(&j);
    json_bool(&j, "live", true);
    json_null(&j, "none");
    json_real(&j, "part", 0.25);
    json_real(&j, "bad", NAN);
    json_end(&j);
    check("{\"name\":\"a\",\"copies\":[18446744073709551615,-1,{}],\"live\":true,\"none\":null,"
          "\"part\":0.25,\"bad\":null}\n");
}

static void strings_are_escaped(void)
{
    static const struct {
        const char *in;
        const char *want;
    } strings[] = {
        { "q\"b\\n\n\x7f", "[\"q\\\"b\\\\n\\u000a\\u007f\"]\n" },
        { "gr\303\274n \342\202\254 \360\237\230\200",
          "[\"gr\303\274n \342\202\254 \360\237\230\200\"]\n" },
        { "\377x\303", "[\"\\udcffx\\udcc3\"]\n" },                     /* no UTF-8; cut off */
        { "\300\200", "[\"\\udcc0\\udc80\"]\n" },                       /* overlong */
        { "\355\240\200", "[\"\\udced\\udca0\\udc80\"]\n" },            /* a surrogate */
        { "\364\220\200\200", "[\"\\udcf4\\udc90\\udc80\\udc80\"]\n" }, /* beyond Unicode */
        { "", "[\"\"]\n" },
    };

    for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
        struct json j = begin();

        json_array(&j, NULL);
        json_str(&j, NULL, strings[i].in);
        json_end(&j);
        check(strings[i].want);
    }
}

int main(void)
{
    tap_run("documents nest", documents_nest);
    tap_run("strings are escaped", strings_are_escaped);
    return tap_done();
}
