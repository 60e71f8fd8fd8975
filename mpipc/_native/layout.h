/* What lies in shared memory. Only offsets, never pointers; every field has one writer rule.
 *
 * A channel is one direction of messages: a header page, then extents that tile the rest. Two
 * channels (the directions of a duplex Pipe) may share a memfd, CHANNEL_STRIDE bytes apart.
 *
 *   page 0            header: struct channel
 *   page 1..npages-1  extents, each headed by struct extent: message chunks, large messages, free
 *
 * struct channel ("lock": written only while holding `lock`)
 *
 *   offset size field      writer                     order
 *   0      8    magic      initialiser, last          release / acquire
 *   8      4    version    initialiser
 *   12     4    flags      initialiser
 *   16     4    maxsize    initialiser                messages; 0 = unbounded
 *   20     4    maxpages   initialiser                cap on npages
 *   24     8    maxbytes   initialiser                backlog that blocks a sender; 0 = none
 *   64     4    lock       robust lock word           see below
 *   68     4    exposed    lock, 0 -> 1               somebody asked for the reader's fileno()
 *   72     8    head       lock; COMMIT of a take     release / acquire (spinners, sleepers)
 *   80     8    tail       lock; COMMIT of a put      release / acquire
 *   88     4    get_given  lock                       tickets handed to sleeping takers
 *   92     4    get_called lock                       ... of those, already woken
 *   96     4    put_given  lock                       the same for putters waiting for room
 *   100    4    put_called lock
 *   104    4    bells      lock                       doorbell bytes sent and not yet drained
 *   108    4    spare      lock                       one recycled chunk; 0 = none
 *   112    4    npages     lock; COMMIT of growth     pages that are backed by memory
 *   116    4    done       lock                       tasks marked done (28 bits)
 *   120    8    backlog    lock                       bytes in waiting messages
 *   128    4    read_at    lock                       chunk that head is in (recovery recomputes)
 *   132    4    write_at   lock                       chunk that tail is in (recovery recomputes)
 *   136    4    joiners    lock                       futex: bumped when all tasks are done
 *   140    4    epoch      lock                       recoveries so far
 *   144    4    last       lock                       start of the last extent
 *   148    4    swept      lock                       npages when dead holders were last looked for
 *   152    8    rung_at    lock                       when a sleeper was last woken, monotonic ns
 *   160    4    rung_on    lock                       on which processor
 *   164    4    hand       lock                       a message in hand, first of their list; 0 = none
 *   168    8    looked_at  anybody                    when dead takers were last looked for, ns
 *   176    4    takes      lock                       messages ever taken into a hand
 *   180    4    shut       lock, 0 -> 1               shutdown(): no more puts
 *   184    4    free_pages lock                       in extents that are FREE
 *   188    4    fewest     lock                       ... the fewest there were in this period
 *   192    84   free_list  lock                       first FREE extent of 2^i pages and more
 *   276    4    log        lock                       0: none | index in taker[] + 1
 *                                                      | REDELIVER: the page of a message
 *   280    8    log_head   lock                        what head, done and taker[] are to become
 *   288    8    log_tasks  lock
 *   296    4    log_owner  lock
 *   300    4    log_done   lock
 *   304    16*n taker      lock                        tasks taken and not done, by owner tag; the
 *                                                      last: done by processes that had taken none
 *   2368   8    period_at  lock                       when this period began, monotonic ns
 *   2376   4    surplus    lock                       pages that are still to be given back
 *   2380   4    empty_list lock                       first EMPTY extent
 *
 * lock word: 0 free | tid held | tid+WAITERS held, somebody sleeps | OWNER_DIED kernel's mark:
 *   whoever locks next recovers before anything else.
 * head, tail: (position / 16) << 28 | count. Position and count commit in one store, so a message
 *   is there wholly or not at all, and qsize is exact at every instant.
 *
 * struct extent (head of each run of pages; payload follows)
 *   0      8    desc       lock; HELD -> FREE by its holder     pages << 32 | holder
 *   8      4    epoch      lock        the recovery that found it reachable
 *   12     4    prev       lock        the extent before this one
 *   16     4    list_next  lock        its neighbours in a list, of the free or of those in hand
 *   20     4    list_prev  lock
 *   24     4    taken      lock        in hand: the value of `takes`, which tells the older one
 *   28     4    thread     lock; its reader  in hand: the thread that took it, and BEING_READ
 *   32     16   again      lock        in hand, or handed back: the record of this very extent,
 *   48     16   onward     lock        handed back: and the jump to where head was
 *   64     4*n  heir       lock        forked children that read it too, by owner tag; 0: nobody
 *   Truth are desc and, in hand or handed back, all from `taken` to `onward`, and, while a process
 *   holds it, heir. The rest, and free_list, empty_list, free_pages, hand, last, read_at and write_at,
 *   recovery computes anew.
 *   holder: EXTENT_FREE | owner tag of the process that fills or empties it | EXTENT_LINKED
 *     | EXTENT_LINKED + owner tag of the process that has the message in hand
 *     | EXTENT_EMPTY: free, and only its first page is sure to be backed by memory
 *
 * struct record (in a chunk, 16-aligned): size of a message, kind, form, page
 *   RECORD_INLINE  the bytes follow
 *   RECORD_EXTENT  they are the payload of the extent at `page`
 *   RECORD_JUMP    no message: the next record is at the position `size`, in the extent at `page`
 *   FORM_PICKLE    the message is a pickle, or what send_bytes() was given
 *   FORM_BYTES     the content of a bytes object
 *   FORM_VALUE     a number, a string or a small container of them: see typed.pxi
 *   FORM_ARRAY     struct array_header and the content of a NumPy array
 *   FORM_ENCLOSED  a pickle and, behind it, its buffers: see codec.pxi */
#ifndef MPIPC_LAYOUT_H
#define MPIPC_LAYOUT_H
#include <stddef.h>
#include <stdint.h>

#define CHANNEL_MAGIC 0x314c4e4843504d21ull
#define CHANNEL_VERSION 4u
#define CHANNEL_STRIDE (1ull << 40)
#define FREE_LISTS 21
#define CHANNEL_WAITS_ON_FD 1u /* flags: long sleeps are on the doorbell */
#define CHANNEL_JOINABLE 2u    /* flags: takers are noted */
#define CHANNEL_REDELIVER 4u   /* flags: ... by their messages, which stay until task_done() */
#define CHANNEL_VIEWS 8u       /* flags: receivers look into messages where they lie */
#define TAKERS 128
#define HEIRS 16

#define PAGE_SHIFT 12
#define PAGE_BYTES (1ull << PAGE_SHIFT)
#define FIRST_CHUNK_PAGES 3u
#define CHUNK_PAGES 16u
#define INLINE_MAX 4096u

#define COUNT_BITS 28
#define COUNT_MASK 0xfffffffu

#define RECORD_INLINE 1u
#define RECORD_EXTENT 2u
#define RECORD_JUMP 3u

#define FORM_PICKLE 0u
#define FORM_BYTES 1u
#define FORM_VALUE 2u
#define FORM_ARRAY 3u
#define FORM_ENCLOSED 4u

#define EXTENT_FREE 0u
#define EXTENT_EMPTY 0x7fc00000u /* no owner tag: see process.pxi */
#define EXTENT_LINKED 0x80000000u
#define BEING_READ 0x80000000u

typedef struct taker {
    uint32_t owner;
    uint32_t pad;
    uint64_t tasks;
} taker;

typedef struct channel {
    uint64_t magic;
    uint32_t version;
    uint32_t flags;
    uint32_t maxsize;
    uint32_t maxpages;
    uint64_t maxbytes;
    char line0[32];
    uint32_t lock;
    uint32_t exposed;
    uint64_t head;
    uint64_t tail;
    uint32_t get_given;
    uint32_t get_called;
    uint32_t put_given;
    uint32_t put_called;
    uint32_t bells;
    uint32_t spare;
    uint32_t npages;
    uint32_t done;
    uint64_t backlog;
    uint32_t read_at;
    uint32_t write_at;
    uint32_t joiners;
    uint32_t epoch;
    uint32_t last;
    uint32_t swept;
    uint64_t rung_at;
    uint32_t rung_on;
    uint32_t hand;
    int64_t looked_at;
    uint32_t takes;
    uint32_t shut;
    uint32_t free_pages;
    uint32_t fewest;
    uint32_t free_list[FREE_LISTS];
    uint32_t log;
    uint64_t log_head;
    uint64_t log_tasks;
    uint32_t log_owner;
    uint32_t log_done;
    taker taker[TAKERS + 1];
    uint64_t period_at;
    uint32_t surplus;
    uint32_t empty_list;
} channel;

typedef struct record {
    uint64_t size;
    uint16_t kind;
    uint16_t form;
    uint32_t page;
} record;

typedef struct extent {
    uint64_t desc;
    uint32_t epoch;
    uint32_t prev;
    uint32_t list_next;
    uint32_t list_prev;
    uint32_t taken;
    uint32_t thread;
    record again;
    record onward;
    uint32_t heir[HEIRS];
} extent;

#define AGAIN_OFFSET offsetof(extent, again)

/* In front of an array's content, which so starts on a cache line as its extent's payload does. */
#define ARRAY_DIMENSIONS 7

typedef struct array_header {
    uint8_t type;  /* NumPy's character for the type of an element */
    uint8_t order; /* 'C' or 'F' */
    uint16_t dimensions;
    uint32_t pad;
    int64_t shape[ARRAY_DIMENSIONS];
} array_header;

/* struct condition: who waits, in slots claimed and left by compare-and-swap; no lock of its own.
 *
 *   offset size field     writer                    order
 *   0      4    next      any waiter (fetch-add)    gives each wait its place in line
 *   4      4    crowd     notify (bump)             futex of waiters that found no slot
 *   8      4    crowded   such waiters (add, sub)   a hint: too high costs one wake
 *   16     8    rung      notify                    when and where: see futex.pxi; a hint
 *   24     8*n  slot[]    see below
 *
 * slot: owner << 32 | place << 2 | state
 *   SLOT_FREE     -> WAITING or SPINNING by a process that waits
 *   SLOT_SPINNING -> WAITING by its owner, who sleeps from then on; else as SLOT_WAITING
 *   SLOT_WAITING  -> NOTIFIED by notify, -> FREE by its owner (timeout), -> FREE by anyone who
 *                    finds the owner dead
 *   SLOT_NOTIFIED -> FREE by its owner, or by anyone who finds the owner dead */
#define CONDITION_SLOTS 61
#define SLOT_FREE 0u
#define SLOT_WAITING 1u
#define SLOT_NOTIFIED 2u
#define SLOT_SPINNING 3u
#define SLOT_STATE 3u
#define SLOT_OCCUPIED 1u /* the bit that WAITING and SPINNING have */

typedef struct condition {
    uint32_t next;
    uint32_t crowd;
    uint32_t crowded;
    uint32_t pad;
    uint64_t rung;
    uint64_t slot[CONDITION_SLOTS];
} condition;

/* struct semaphore, also of locks, and struct event:
 *
 *   offset size field  writer                  order
 *   0      8|4  word   anybody (CAS)           see sync.pxi
 *   8      8    rung   whoever wakes others    when and where: see futex.pxi; a hint */
typedef struct semaphore {
    uint64_t word;
    uint64_t rung;
} semaphore;

typedef struct event {
    uint32_t word;
    uint32_t pad;
    uint64_t rung;
} event;

/* struct undo_table: a semaphore that gives back the units of a killed holder.
 *
 *   offset size field      writer                          order
 *   0      8    word       lock; SLEEPERS by any sleeper   value and SLEEPERS, as in other semaphores
 *   8      4    lock       robust lock word                as a channel's
 *   12     4    log_value  lock
 *   16     8    log_slot   lock; COMMIT of a change        0: none | index + 1 << 32 | units
 *   24     8*n  slot[]     lock                            0: free | owner << 32 | units it holds */
#define UNDO_SLOTS 125

typedef struct undo_table {
    uint64_t word;
    uint32_t lock;
    uint32_t log_value;
    uint64_t log_slot;
    uint64_t slot[UNDO_SLOTS];
} undo_table;

#define AT(type, field, offset) \
    _Static_assert(offsetof(struct type, field) == (offset), #type "." #field)
AT(channel, magic, 0);
AT(channel, maxbytes, 24);
AT(channel, lock, 64);
AT(channel, exposed, 68);
AT(channel, head, 72);
AT(channel, tail, 80);
AT(channel, get_given, 88);
AT(channel, put_called, 100);
AT(channel, bells, 104);
AT(channel, npages, 112);
AT(channel, backlog, 120);
AT(channel, read_at, 128);
AT(channel, epoch, 140);
AT(channel, rung_at, 152);
AT(channel, hand, 164);
AT(channel, looked_at, 168);
AT(channel, takes, 176);
AT(channel, shut, 180);
AT(channel, free_pages, 184);
AT(channel, free_list, 192);
AT(channel, log, 276);
AT(channel, taker, 304);
AT(channel, period_at, 2368);
AT(channel, empty_list, 2380);
AT(extent, epoch, 8);
AT(extent, taken, 24);
AT(extent, again, 32);
AT(extent, onward, 48);
AT(extent, heir, 64);
AT(record, form, 10);
AT(record, page, 12);
AT(condition, slot, 24);
AT(semaphore, rung, 8);
AT(event, rung, 8);
AT(undo_table, slot, 24);
_Static_assert(sizeof(struct channel) <= PAGE_BYTES, "the header is one page");
_Static_assert(sizeof(struct extent) == 128, "payload starts on a cache line");
_Static_assert(sizeof(struct record) == 16, "records are 16-aligned");
_Static_assert(sizeof(struct array_header) == 64, "an array's content starts on a cache line");
_Static_assert(sizeof(struct condition) == 512, "one arena block");
_Static_assert(sizeof(struct undo_table) == 1024, "one arena block");
#undef AT

#endif
