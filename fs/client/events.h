/* Hearing of what others did: one request to the masters is held there until something happens.
 *
 * A thread with a connection of its own asks, and calls the handlers with each event; it starts with
 * the first handler. It goes on through lost connections, restarts of masters and sessions that were
 * replaced; whenever something may have been missed the handlers get EVENT_ALL. Events are hints:
 * what they make faster must be right without them.
 */
#ifndef DFS_FS_CLIENT_EVENTS_H
#define DFS_FS_CLIENT_EVENTS_H

#include "fs/client/meta.h"

#define CLIENT_EVENT_HANDLERS 8

struct client_events;

struct client_events *client_events_new(struct meta *m);
/* Ends the thread. Before meta_close(). NULL is fine. */
void client_events_free(struct client_events *e);

/* Handlers are called on the thread, one at a time; ev is borrowed. They do not wait for long, and
 * do not call the functions below. Any other thread. */
void client_events_on(struct client_events *e, client_event_fn *fn, void *arg);
/* Once it returns the handler is not running and is never called again. */
void client_events_off(struct client_events *e, client_event_fn *fn, void *arg);

#endif
