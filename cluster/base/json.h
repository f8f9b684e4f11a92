/* Writes one JSON document as it goes: for --json outputs. Nothing is read, nothing is kept.
 *
 *   struct json j = json_to(stdout);
 *   json_object(&j, NULL);
 *   json_text(&j, "name", slice_str("a"));
 *   json_array(&j, "copies"); json_num(&j, NULL, 3); json_end(&j);
 *   json_end(&j);                    -> {"name":"a","copies":[3]} and a newline
 *
 * key is NULL inside arrays and for the outermost value. Strings may hold any bytes: what is not
 * UTF-8 is written as the lone surrogates U+DC80-U+DCFF, one a byte, as Python's "surrogateescape"
 * reads and writes them, so that no two names look the same.
 */
#ifndef DFS_CLUSTER_BASE_JSON_H
#define DFS_CLUSTER_BASE_JSON_H

#include "cluster/base/base.h"

#define JSON_DEPTH 16

struct json {
    FILE *to;
    int depth;
    char close[JSON_DEPTH]; /* what ends each open level */
    bool comma;             /* something was written on this level */
};

struct json json_to(FILE *to);
void json_object(struct json *j, const char *key);
void json_array(struct json *j, const char *key);
void json_end(struct json *j); /* of the innermost; behind the outermost a newline follows */
void json_text(struct json *j, const char *key, struct slice text);
void json_str(struct json *j, const char *key, const char *text);
void json_num(struct json *j, const char *key, uint64_t v);
void json_int(struct json *j, const char *key, int64_t v);
void json_real(struct json *j, const char *key, double v);
void json_bool(struct json *j, const char *key, bool v);
void json_null(struct json *j, const char *key);

#endif
