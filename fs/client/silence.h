/* Tells a person at a terminal that the masters do not answer, while the deadline is still far away.
 *
 * Off until client_on_silence(); then a thread looks at how long the calls that are under way have been
 * without any answer, and tells once a silence. Any thread.
 */
#ifndef DFS_FS_CLIENT_SILENCE_H
#define DFS_FS_CLIENT_SILENCE_H

#include "cluster/base/base.h"

#define SILENCE_MS 2000

/* Around a call that waits for masters; err is how it ended. */
void silence_begin(void);
void silence_end(int err);

#endif
