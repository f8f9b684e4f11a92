/* Volumes that came or went by command while the server ran, so that a restart has the same: a small
 * text file beside the server's identity, replaced atomically.
 *
 *   <block.data>/dfs-volumes
 *     format 1
 *     added [ssd]/disk4       not in block.volumes, but used
 *     leaving /disk2          is being emptied
 *     removed /disk1          still in block.volumes, but not used any more
 */
#ifndef DFS_REPLICATION_STORE_VOLUME_LIST_H
#define DFS_REPLICATION_STORE_VOLUME_LIST_H

#include "cluster/base/base.h"

#include "cluster/base/limits.h"

enum volume_note { NOTE_ADDED, NOTE_LEAVING, NOTE_REMOVED, NOTES };

#define VOLUME_LIST_MAX (4 * LIMIT_VOLUMES)

struct volume_list {
    struct volume_line {
        enum volume_note note;
        char *spec; /* owned: a path, perhaps with a label in front */
    } lines[VOLUME_LIST_MAX];
    size_t count;
};

void volume_list_fini(struct volume_list *l);
/* No file: an empty list. Errors: DFS_EDAMAGED (says which line), DFS_EVERSION. */
int volume_list_load(const char *dir, struct volume_list *ret, struct why *why);
int volume_list_save(const char *dir, const struct volume_list *l, struct why *why);
/* The text form; the file is untrusted. */
int volume_list_parse(const char *text, struct volume_list *ret, struct why *why);

/* The path behind a label. */
const char *volume_list_path(const char *spec);
bool volume_list_has(const struct volume_list *l, enum volume_note note, const char *spec);
/* Setting twice and dropping what is not there are fine. DFS_ENOSPC: the list is full. */
int volume_list_set(struct volume_list *l, enum volume_note note, const char *spec);
void volume_list_drop(struct volume_list *l, enum volume_note note, const char *spec);

/* "[ssd]/disk1": the label, or without one label (may be NULL), and the path behind it. DFS_ECONFIG. */
int volume_spec_split(const char *spec, const char *label, char ret[LIMIT_LABEL + 1],
                      const char **ret_path, struct why *why);
/* The next one of block.volumes, which is cut up, without blanks and slashes behind; NULL at the end. */
const char *volume_spec_next(char **list);
/* block.volumes and block.label as they are written, without a look at disks. DFS_ECONFIG. */
int volume_spec_check(const char *volumes, const char *label, struct why *why);

#endif
