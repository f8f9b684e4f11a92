/* Storage rules: on volumes with which labels the copies of a block are to be.
 *
 *   ssd                   all copies on volumes labelled ssd
 *   ssd:2,any:1           three copies: two on ssd, one wherever there is room
 *   ssd:1,hdd             one on ssd, all others on hdd
 *   ssd:2,any:1,strict    ... and never elsewhere: rather fewer copies than misplaced ones
 *
 * Without "strict" a rule is preferred: a copy goes elsewhere when no volume with its label has
 * room, and racks come before labels. Pure functions.
 */
#ifndef DFS_REPLICATION_RULE_H
#define DFS_REPLICATION_RULE_H

#include "cluster/base/base.h"

#include "cluster/base/limits.h"

struct rule {
    bool strict;
    uint8_t count;              /* slots with a number */
    char rest[LIMIT_LABEL + 1]; /* of copies beyond the slots; empty: any */
    char slot[LIMIT_REPLICATION][LIMIT_LABEL + 1];
};

#define RULE_TEXT 256 /* bytes of the longest rule as text, with its end */

/* Letters, digits, '-', '_' and '.', 1 to LIMIT_LABEL of them, no reserved word. */
bool rule_label_ok(struct slice label);
/* DFS_EINVAL with why. */
int rule_parse(struct slice text, struct rule *ret, struct why *why);
/* The one way to write this rule. */
const char *rule_format(const struct rule *r, char buf[RULE_TEXT]);
/* How many copies the rule is about; 0: it says nothing about that. */
uint8_t rule_copies(const struct rule *r);
/* The label of copy i (from 0); "" for any. r may be NULL: no rule. */
const char *rule_label(const struct rule *r, size_t i);

#endif
