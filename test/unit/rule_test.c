#include "replication/rule.h"

#include "test/unit/tap.h"

static const char *again(const char *text)
{
    static char buf[RULE_TEXT];
    struct rule r;

    return rule_parse(slice_str(text), &r, NULL) == 0 ? rule_format(&r, buf) : "(refused)";
}

static void test_forms(void)
{
    CHECK_STR(again("ssd"), "ssd");
    CHECK_STR(again("ssd:2,any:1"), "ssd:2,any:1");
    CHECK_STR(again("any:1,ssd:2"), "ssd:2,any:1"); /* what is particular comes first */
    CHECK_STR(again("ssd:1,ssd:1,hdd"), "ssd:2,hdd");
    CHECK_STR(again("ssd:1,any,strict"), "ssd:1,strict");
    CHECK_STR(again("ssd:2,preferred"), "ssd:2");
    CHECK_STR(again("any"), "any");
}

static void test_refused(void)
{
    static const char *const bad[] = { "",          ",",           "ssd:",   "ssd:0",
                                       "ssd:17",    "ssd:9,hdd:8", "strict", "strict,ssd",
                                       "ssd,hdd:1", "s d",         "ssd:1x", "none",
                                       "a:b",       "ssd,,hdd" };
    struct why why;

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct rule r;

        why = (struct why){ "" };
        CHECK(rule_parse(slice_str(bad[i]), &r, &why) != 0);
        CHECK(why.text[0] != '\0');
    }
}

static void test_labels(void)
{
    struct rule r;

    CHECK_INT(rule_parse(slice_str("ssd:2,any:1"), &r, NULL), 0);
    CHECK_INT(rule_copies(&r), 3);
    CHECK_STR(rule_label(&r, 1), "ssd");
    CHECK_STR(rule_label(&r, 2), "");
    CHECK_STR(rule_label(&r, 5), "");
    CHECK_INT(rule_parse(slice_str("ssd:1,hdd"), &r, NULL), 0);
    CHECK_INT(rule_copies(&r), 0);
    CHECK_STR(rule_label(&r, 15), "hdd");
    CHECK_STR(rule_label(NULL, 0), "");
}

int main(void)
{
    tap_run("rules have one way to be written", test_forms);
    tap_run("what is no rule is refused with a sentence", test_refused);
    tap_run("labels of copies, and how many there are", test_labels);
    return tap_done();
}
