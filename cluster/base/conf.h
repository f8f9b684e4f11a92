/* Configuration: one table of typed keys (cluster/keys.def), one text file for every role.
 *
 * "key = value" lines; a # at the start of a line, behind a blank or behind the = begins a comment.
 * Defaults go through the same parser as a user's text. Unknown keys, wrong units, values out of
 * range and keys given twice are errors that name file, line, what was expected and the nearest
 * key.
 */
#ifndef DFS_CLUSTER_BASE_CONF_H
#define DFS_CLUSTER_BASE_CONF_H

#include "cluster/base/base.h"

/* One field per row of keys.def: KEY(type, field, "name", default, min, max, unit/when, help)
 *   size  uint64_t bytes    "64MiB", "1GiB", "4096"
 *   time  uint64_t ms       "1s", "500ms", "15s", "10m", "14d"
 *   num   uint64_t
 *   flag  bool              "yes" | "no"
 *   text  char *            owned by the conf
 *   list  char *            comma separated; given twice in one file, values are joined */
struct conf {
#define CONF_T_size                                       uint64_t
#define CONF_T_time                                       uint64_t
#define CONF_T_num                                        uint64_t
#define CONF_T_flag                                       bool
#define CONF_T_text                                       char *
#define CONF_T_list                                       char *
#define KEY(type, field, name, def, min, max, when, help) CONF_T_##type field;
#define SECTION(title, help)
#include "cluster/keys.def"
#undef KEY
#undef SECTION
};

struct conf *conf_new(void); /* all defaults */
void conf_free(struct conf *c);
/* Reads a file over what is there. DFS_ECONFIG or DFS_ENOENT with why. */
int conf_load(struct conf *c, const char *path, struct why *why);
/* The same from memory; name stands for the file in messages. */
int conf_load_text(struct conf *c, const char *name, struct slice text, struct why *why);
/* "key=value", from a command line; replaces what a file said. DFS_ECONFIG with why. */
int conf_set(struct conf *c, const char *assignment, struct why *why);
/* What one key alone cannot tell: addresses, log levels, times that must be in order. To be called
 * once everything is loaded and set. DFS_ECONFIG with why, which says where the value came from. */
int conf_check(const struct conf *c, struct why *why);
/* The commented sample that dfs.conf.example holds. */
void conf_print_sample(FILE *to);
/* All values now in force, one "key = value" a line. */
void conf_print(const struct conf *c, FILE *to);
/* Only those that a file or conf_set() gave: what another process needs to see the same. */
void conf_print_given(const struct conf *c, FILE *to);
/* All values as a JSON object of strings. */
void conf_print_json(const struct conf *c, FILE *to);

/* "64MiB" -> bytes, "15s" -> ms: for command line options too. DFS_EINVAL with why. */
int parse_size(const char *text, uint64_t *ret, struct why *why);
int parse_time_ms(const char *text, uint64_t *ret, struct why *why);
/* Decimal digits. */
int parse_num(const char *text, uint64_t *ret, struct why *why);

#endif
