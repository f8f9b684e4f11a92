/* Words and numbers for people: sizes, times, the word that was probably meant. */
#ifndef DFS_CLUSTER_BASE_TEXT_H
#define DFS_CLUSTER_BASE_TEXT_H

#include "cluster/base/base.h"

#define TEXT_NUMBER 32 /* bytes for any of the numbers below, NUL included */

/* Rounded, for reading: "0 B", "17 B", "4.0 KiB", "931 GiB". Returns buf. */
const char *text_bytes(uint64_t bytes, char buf[TEXT_NUMBER]);
/* Exact, as the configuration takes it: "64MiB", "4097". */
const char *text_size(uint64_t bytes, char buf[TEXT_NUMBER]);
/* Exact, as the configuration takes it: "1s", "1500ms", "14d". */
const char *text_time(uint64_t ms, char buf[TEXT_NUMBER]);
/* Rounded, for reading: "0.4 s", "12 s", "3 min 20 s", "2 h 5 min", "12 d 3 h". */
const char *text_ago(uint64_t ms, char buf[TEXT_NUMBER]);

/* How many letters must be put in, taken out, replaced or swapped with a neighbour. */
size_t text_distance(const char *a, const char *b);

/* The one of count words that word was probably meant to be, or NULL when none is near. */
const char *text_nearest(const char *word, const char *const *words, size_t count);

#endif
