/* Access control lists as values: the kernel's form, and how list and mode follow each other. */
#include "fs/ns/acl.h"

#include "test/unit/tap.h"

static uint8_t bytes[2 * ACL_BYTES_MAX];

static struct slice encode(const struct acl *acl)
{
    struct wire_out out = wire_out_over(bytes, sizeof(bytes));

    acl_put(&out, acl);
    CHECK_INT(out.err, 0);
    return slice_of(bytes, out.len);
}

static const struct acl plain = {
    .count = 3, .e = { { ACL_USER_OBJ, 6, 0 }, { ACL_GROUP_OBJ, 4, 0 }, { ACL_OTHER, 0, 0 } }
};
static const struct acl named = { .count = 6,
                                  .e = { { ACL_USER_OBJ, 7, 0 },
                                         { ACL_USER, 6, 1000 },
                                         { ACL_USER, 5, 1001 },
                                         { ACL_GROUP_OBJ, 4, 0 },
                                         { ACL_MASK, 3, 0 },
                                         { ACL_OTHER, 1, 0 } } };

static void bytes_are_the_kernels(void)
{
    static const uint8_t want[] = { 2,    0,    0, 0, 1,    0,    6,    0,    0xff, 0xff,
                                    0xff, 0xff, 4, 0, 4,    0,    0xff, 0xff, 0xff, 0xff,
                                    0x20, 0,    0, 0, 0xff, 0xff, 0xff, 0xff };
    struct acl got;

    CHECK(slice_eq(encode(&plain), slice_of(want, sizeof(want))));
    CHECK_INT(acl_get(encode(&named), &got), 0);
    CHECK_INT(got.count, named.count);
    for (size_t i = 0; i < got.count; i++) {
        CHECK_INT(got.e[i].tag, named.e[i].tag);
        CHECK_INT(got.e[i].perm, named.e[i].perm);
    }
    CHECK_INT(got.e[1].id, 1000);
}

static void only_lists_that_make_sense_are_taken(void)
{
    static const struct {
        const char *why;
        int want;
        struct acl acl;
    } cases[] = {
        { "no owner", DFS_EINVAL, { 2, { { ACL_GROUP_OBJ, 0, 0 }, { ACL_OTHER, 0, 0 } } } },
        { "no group", DFS_EINVAL, { 2, { { ACL_USER_OBJ, 0, 0 }, { ACL_OTHER, 0, 0 } } } },
        { "no other", DFS_EINVAL, { 2, { { ACL_USER_OBJ, 0, 0 }, { ACL_GROUP_OBJ, 0, 0 } } } },
        { "out of order",
          DFS_EINVAL,
          { 3, { { ACL_GROUP_OBJ, 0, 0 }, { ACL_USER_OBJ, 0, 0 }, { ACL_OTHER, 0, 0 } } } },
        { "twice",
          DFS_EINVAL,
          { 4,
            { { ACL_USER_OBJ, 0, 0 },
              { ACL_USER_OBJ, 0, 0 },
              { ACL_GROUP_OBJ, 0, 0 },
              { ACL_OTHER, 0, 0 } } } },
        { "named without mask",
          DFS_EINVAL,
          { 4,
            { { ACL_USER_OBJ, 0, 0 },
              { ACL_USER, 0, 5 },
              { ACL_GROUP_OBJ, 0, 0 },
              { ACL_OTHER, 0, 0 } } } },
        { "more than rwx",
          DFS_EINVAL,
          { 3, { { ACL_USER_OBJ, 8, 0 }, { ACL_GROUP_OBJ, 0, 0 }, { ACL_OTHER, 0, 0 } } } },
        { "no such tag",
          DFS_EINVAL,
          { 4,
            { { ACL_USER_OBJ, 0, 0 },
              { ACL_GROUP_OBJ, 0, 0 },
              { ACL_OTHER, 0, 0 },
              { 0x40, 0, 0 } } } },
        { "mask without names",
          0,
          { 4,
            { { ACL_USER_OBJ, 0, 0 },
              { ACL_GROUP_OBJ, 0, 0 },
              { ACL_MASK, 0, 0 },
              { ACL_OTHER, 0, 0 } } } },
        { "nothing", 0, { 0, { { 0, 0, 0 } } } },
    };
    struct slice s = encode(&plain);
    struct acl got;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        int err = acl_get(encode(&cases[i].acl), &got);

        if (err != cases[i].want) {
            printf("# %s: %d\n", cases[i].why, err);
        }
        CHECK_INT(err, cases[i].want);
    }
    s = encode(&plain);
    CHECK_INT(acl_get(slice_of(s.p, s.len - 1), &got), DFS_EINVAL);
    CHECK_INT(acl_get(slice_of(s.p, 3), &got), DFS_EINVAL);
    bytes[0] = 3;
    CHECK_INT(acl_get(s, &got), DFS_ENOTSUP);
    CHECK_INT(acl_get(SLICE_EMPTY, &got), 0);
    CHECK_INT(got.count, 0);
}

static void lists_are_bounded(void)
{
    static struct acl big;
    struct acl got;

    big = named;
    for (big.count = 1; big.count < ACL_MAX - 3; big.count++) {
        big.e[big.count] = (struct acl_entry){ ACL_USER, 7, (uint32_t)big.count };
    }
    for (size_t i = 3; i < named.count; i++) {
        big.e[big.count++] = named.e[i];
    }
    CHECK_INT(big.count, ACL_MAX);
    CHECK_INT(encode(&big).len, ACL_HEAD + ACL_MAX * ACL_ENTRY);
    CHECK_INT(acl_get(encode(&big), &got), 0);
    CHECK_INT(acl_get(slice_of(bytes, ACL_HEAD + (ACL_MAX + 1) * ACL_ENTRY), &got), DFS_ETOOBIG);
}

static void modes_and_lists_follow_each_other(void)
{
    struct acl acl = named;
    uint32_t mode = 0107777;

    CHECK(!acl_to_mode(&named, &mode));
    CHECK_INT(mode, 0107731); /* the group bits are the mask */
    CHECK(acl_to_mode(&plain, &mode));
    CHECK_INT(mode, 0107640);
    acl_chmod(&acl, 0100652);
    CHECK_INT(acl.e[0].perm, 6);
    CHECK_INT(acl.e[3].perm, 4); /* the group's own entry stays: the mask is what changes */
    CHECK_INT(acl.e[4].perm, 5);
    CHECK_INT(acl.e[5].perm, 2);
    acl = plain;
    acl_chmod(&acl, 0777);
    CHECK_INT(acl.e[1].perm, 7);
}

static void what_is_made_inherits(void)
{
    struct acl acl = named;
    uint32_t mode = 0100666;

    CHECK(acl_inherit(&acl, &mode));
    CHECK_INT(mode, 0100620);
    CHECK_INT(acl.e[0].perm, 6);
    CHECK_INT(acl.e[1].perm, 6); /* named entries stay as they are */
    CHECK_INT(acl.e[4].perm, 2);
    CHECK_INT(acl.e[5].perm, 0);
    acl = plain;
    mode = 0040777;
    CHECK(!acl_inherit(&acl, &mode));
    CHECK_INT(mode, 0040640);
}

int main(void)
{
    tap_run("bytes are the kernel's", bytes_are_the_kernels);
    tap_run("only lists that make sense are taken", only_lists_that_make_sense_are_taken);
    tap_run("lists are bounded", lists_are_bounded);
    tap_run("modes and lists follow each other", modes_and_lists_follow_each_other);
    tap_run("what is made inherits", what_is_made_inherits);
    return tap_done();
}
