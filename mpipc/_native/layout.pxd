from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "_native/layout.h" nogil:
    uint64_t CHANNEL_MAGIC, CHANNEL_STRIDE, PAGE_BYTES
    uint32_t CHANNEL_VERSION, CHANNEL_WAITS_ON_FD, CHANNEL_JOINABLE, CHANNEL_REDELIVER
    uint32_t CHANNEL_VIEWS, COUNT_MASK
    int FREE_LISTS, PAGE_SHIFT, COUNT_BITS
    uint32_t FIRST_CHUNK_PAGES, CHUNK_PAGES, INLINE_MAX
    uint32_t RECORD_INLINE, RECORD_EXTENT, RECORD_JUMP
    uint32_t FORM_PICKLE, FORM_BYTES, FORM_VALUE, FORM_ARRAY, FORM_ENCLOSED
    int ARRAY_DIMENSIONS
    uint32_t EXTENT_FREE, EXTENT_EMPTY, EXTENT_LINKED, BEING_READ
    uint64_t AGAIN_OFFSET
    int CONDITION_SLOTS
    int UNDO_SLOTS, TAKERS, HEIRS
    uint32_t SLOT_FREE, SLOT_WAITING, SLOT_NOTIFIED, SLOT_SPINNING, SLOT_STATE, SLOT_OCCUPIED

    ctypedef struct taker:
        uint32_t owner
        uint64_t tasks

    ctypedef struct channel:
        uint64_t magic
        uint32_t version
        uint32_t flags
        uint32_t maxsize
        uint32_t maxpages
        uint64_t maxbytes
        uint32_t lock
        uint32_t exposed
        uint64_t head
        uint64_t tail
        uint32_t get_given
        uint32_t get_called
        uint32_t put_given
        uint32_t put_called
        uint32_t bells
        uint32_t spare
        uint32_t npages
        uint32_t done
        uint64_t backlog
        uint32_t read_at
        uint32_t write_at
        uint32_t joiners
        uint32_t epoch
        uint32_t last
        uint32_t swept
        uint64_t rung_at
        uint32_t rung_on
        uint32_t hand
        int64_t looked_at
        uint32_t takes
        uint32_t shut
        uint32_t free_pages
        uint32_t fewest
        uint32_t* free_list
        uint32_t log
        uint64_t log_head
        uint64_t log_tasks
        uint32_t log_owner
        uint32_t log_done
        taker* taker
        uint64_t period_at
        uint32_t surplus
        uint32_t empty_list

    ctypedef struct record:
        uint64_t size
        uint16_t kind
        uint16_t form
        uint32_t page

    ctypedef struct extent:
        uint64_t desc
        uint32_t epoch
        uint32_t prev
        uint32_t list_next
        uint32_t list_prev
        uint32_t taken
        uint32_t thread
        record again
        record onward
        uint32_t* heir

    ctypedef struct array_header:
        uint8_t type
        uint8_t order
        uint16_t dimensions
        uint32_t pad
        int64_t* shape

    ctypedef struct condition:
        uint32_t next
        uint32_t crowd
        uint32_t crowded
        uint64_t rung
        uint64_t* slot

    ctypedef struct semaphore:
        uint64_t word
        uint64_t rung

    ctypedef struct event:
        uint32_t word
        uint64_t rung

    ctypedef struct undo_table:
        uint64_t word
        uint32_t lock
        uint32_t log_value
        uint64_t log_slot
        uint64_t* slot
