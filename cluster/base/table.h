/* Aligned tables for people.
 *
 *   struct table *t = table_new("SERVER STATE >USED");   -- > in front: aligned to the right
 *   table_cell(t, "block-%u", 1); table_cell(t, "live"); table_cell(t, "%s", text_bytes(n, buf));
 *   table_print(t, stdout);
 *   table_free(t);
 *
 * Cells fill rows from left to right. Control characters are shown as "?".
 */
#ifndef DFS_CLUSTER_BASE_TABLE_H
#define DFS_CLUSTER_BASE_TABLE_H

#include "cluster/base/base.h"

#define TABLE_COLUMNS 16

struct table;

/* Titles, separated by blanks; an underscore in a title is printed as a blank. */
struct table *table_new(const char *titles);
void table_free(struct table *t); /* NULL is fine */
void table_cell(struct table *t, const char *fmt, ...) PRINTF_LIKE(2, 3);
void table_print(const struct table *t, FILE *to);

#endif
