/* Any text as a configuration: it is refused with a sentence, or it prints to text that means the
 * same. */
#include "cluster/base/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

static char *given(const struct conf *c, size_t *ret_len)
{
    char *text = NULL;
    FILE *to = open_memstream(&text, ret_len);

    conf_print_given(c, to);
    fclose(to);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    struct conf *a = conf_new();
    struct conf *b = conf_new();
    struct why why = { "" };

    if (conf_load_text(a, "fuzz", slice_of(p, len), &why) == 0) {
        size_t len_a = 0, len_b = 0;
        char *text_a = given(a, &len_a), *text_b;

        ASSERT(conf_load_text(b, "again", slice_of(text_a, len_a), &why) == 0);
        text_b = given(b, &len_b);
        ASSERT(len_a == len_b && memcmp(text_a, text_b, len_a) == 0);
        free(text_a);
        free(text_b);
        conf_check(a, &why);
    } else {
        ASSERT(why.text[0] != '\0');
    }
    conf_free(a);
    conf_free(b);
    return 0;
}
