/* The common workload of bench_queueing.py as an event loop: a binary heap of (time, packet), one event a hop.
 * FIFO stations with one server: a packet's departure is known when it arrives. Times in picoseconds. */
#include <stdint.h>
#include <stdlib.h>

typedef struct { int64_t time; int32_t packet; int32_t at; } event;

static int before(const event *a, const event *b) {
    return a->time < b->time || (a->time == b->time && a->packet < b->packet);
}

static void push(event *heap, int64_t *size, event new) {
    int64_t at = (*size)++;
    while (at > 0) {
        int64_t up = (at - 1) / 2;
        if (!before(&new, &heap[up])) break;
        heap[at] = heap[up];
        at = up;
    }
    heap[at] = new;
}

static event pop(event *heap, int64_t *size) {
    event top = heap[0], last = heap[--(*size)];
    int64_t at = 0;
    for (;;) {
        int64_t down = 2 * at + 1;
        if (down >= *size) break;
        if (down + 1 < *size && before(&heap[down + 1], &heap[down])) down++;
        if (!before(&heap[down], &last)) break;
        heap[at] = heap[down];
        at = down;
    }
    heap[at] = last;
    return top;
}

/* arrivals ascending; service_ps by packet; left_ps is filled in. Returns the number of events, -1 without memory. */
int64_t run(int64_t packets, const int64_t *arrival, const int32_t *way, const int64_t *service,
            const int64_t *start, const int32_t *station, const int64_t *delay, int64_t stations, int64_t *left_ps) {
    int64_t room = 1024, size = 0, next = 0, events = 0;
    event *heap = malloc(room * sizeof *heap);
    int64_t *free_at = calloc(stations, sizeof *free_at);
    if (!heap || !free_at) return -1;
    while (next < packets || size) {
        event now;
        event entering = {next < packets ? arrival[next] : INT64_MAX, (int32_t)next, 0};
        if (!size || before(&entering, &heap[0])) { now = entering; next++; }
        else now = pop(heap, &size);
        events++;
        int64_t row = start[way[now.packet]] + now.at;
        if (row == start[way[now.packet] + 1]) { left_ps[now.packet] = now.time; continue; }
        int32_t at = station[row];
        int64_t begin = free_at[at] > now.time ? free_at[at] : now.time;
        free_at[at] = begin + service[now.packet];
        if (size == room) {
            event *more = realloc(heap, (room *= 2) * sizeof *heap);
            if (!more) return -1;
            heap = more;
        }
        push(heap, &size, (event){free_at[at] + delay[at], now.packet, now.at + 1});
    }
    free(heap);
    free(free_at);
    return events;
}
