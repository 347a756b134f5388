// An allocation table. Addresses are not used twice, and behind each allocation is memory that nobody may touch, so work that
// goes too far, or uses what was given back, stops the process. Fresh memory is 0xff: a NaN in every type of floats.
#include "memory.h"

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace standin {

// All addresses of the device, and how many may be taken.
constexpr uint64_t SPAN = 1ull << 42;
constexpr uint64_t PAGE = 4096;
// Where allocations start, at least.
constexpr uint64_t ALIGNMENT = 256;
// The size of the file that fresh memory is mapped from.
constexpr uint64_t FRESH = 16 << 20;

struct Allocation {
    size_t bytes;
    uint64_t first_page, pages;
    Stream* stream;
    // In the order of its stream, it is given back.
    bool released = false;
    // The device has come to its allocation.
    bool begun = false;
};

static std::map<uint64_t, Allocation> allocations;
static std::map<uint64_t, size_t> before;
static std::map<uint64_t, size_t> pinned;
static uint64_t next_page, last_page, enqueued_bytes;
// Of allocations without a stream, and of the pool with its limit.
static uint64_t direct_bytes, pool_bytes, reserved_bytes, threshold;

size_t capacity() { return setting("STANDIN_MEMORY", 4ull << 30); }
size_t taken() { return direct_bytes + reserved_bytes; }
size_t taken_from_pool() { return pool_bytes; }

void set_threshold(uint64_t bytes) { threshold = bytes; }
uint64_t reserved() { return reserved_bytes; }
void trim(uint64_t keep) { reserved_bytes = std::max(pool_bytes, std::min(reserved_bytes, keep)); }
void trim_as_set() { trim(threshold); }

// A file of 0xff. Mapped privately, it costs nothing until something is written.
static int fresh() {
    static const int file = [] {
        const int made = memfd_create("fresh", 0);
        const std::vector<unsigned char> block(FRESH, 0xff);
        if (made < 0 || write(made, block.data(), FRESH) != static_cast<ssize_t>(FRESH)) std::abort();
        return made;
    }();
    return file;
}

static void map(uint64_t start, uint64_t bytes) {
    for (uint64_t done = 0; done < bytes; done += FRESH) {
        const uint64_t part = bytes - done < FRESH ? bytes - done : FRESH;
        void* found =
            mmap(at<void>(start + done), part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, fresh(), 0);
        if (found == MAP_FAILED) std::abort();
    }
}

uint64_t take(size_t bytes, Stream* stream) {
    if (next_page == 0) {
        void* all = mmap(nullptr, SPAN, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (all == MAP_FAILED) return 0;
        next_page = address_of(all);
        last_page = next_page + SPAN;
    }
    if (bytes > capacity() || enqueued_bytes + bytes > capacity()) return 0;
    const uint64_t used = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    const uint64_t pages = (used + PAGE - 1) / PAGE * PAGE;
    // The end is at the end of a page, and the page after it is nobody's.
    const uint64_t start = next_page + pages - used;
    if (next_page + pages + PAGE > last_page) {
        broken("all addresses are used up");
        std::abort();
    }
    map(next_page, pages);
    allocations[start] = {bytes, next_page, pages, stream};
    next_page += pages + PAGE;
    enqueued_bytes += bytes;
    made("allocations");
    return start;
}

Freed release(uint64_t address) {
    const auto found = allocations.find(address);
    if (found == allocations.end()) {
        if (before.count(address)) return Freed::Twice;
        const Access inside{address, 1, ""};
        return allocated(inside, When::Enqueued, "") ? Freed::Inside : Freed::Unknown;
    }
    if (found->second.released) return Freed::Twice;
    found->second.released = true;
    enqueued_bytes -= found->second.bytes;
    given_back("allocations");
    return Freed::Yes;
}

void begin(uint64_t address) {
    Allocation& found = allocations.at(address);
    found.begun = true;
    if (found.stream) {
        pool_bytes += found.bytes;
        reserved_bytes = std::max(reserved_bytes, pool_bytes);
    } else {
        direct_bytes += found.bytes;
    }
}

void end(uint64_t address) {
    const auto found = allocations.find(address);
    if (found == allocations.end()) return;
    const Allocation& own = found->second;
    mmap(at<void>(own.first_page), own.pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (own.begun) (own.stream ? pool_bytes : direct_bytes) -= own.bytes;
    before[address] = own.bytes;
    allocations.erase(found);
}

void end_all() {
    while (!allocations.empty()) end(allocations.begin()->first);
    enqueued_bytes = direct_bytes = pool_bytes = reserved_bytes = threshold = 0;
}

bool allocated(const Access& access, When when, const std::string& by) {
    const bool silent = by.empty();
    const auto say = [&](const char* reason) {
        if (!silent)
            broken("%s: %s at 0x%llx, %zu bytes: %s", by.c_str(), access.what, static_cast<unsigned long long>(access.address),
                   access.bytes, reason);
        return false;
    };
    auto found = allocations.upper_bound(access.address);
    if (found == allocations.begin()) return say("there is no memory");
    --found;
    const auto& [start, own] = *found;
    if (access.address >= start + own.bytes) {
        const auto old = before.find(access.address);
        return say(old != before.end() ? "the memory was given back" : "there is no memory");
    }
    if (access.address + access.bytes > start + own.bytes) return say("the memory is smaller");
    if (when == When::Enqueued && own.released) return say("the memory was given back");
    if (when == When::Now && !own.begun) return say("the device has not come to its allocation");
    return true;
}

void* pin(size_t bytes) {
    void* start = std::aligned_alloc(PAGE, (bytes + PAGE - 1) / PAGE * PAGE);
    if (!start) return nullptr;
    pinned[address_of(start)] = bytes;
    made("pinned blocks");
    return start;
}

bool unpin(void* start) {
    if (!pinned.erase(address_of(start))) return false;
    std::free(start);
    given_back("pinned blocks");
    return true;
}

bool is_pinned(const void* start, size_t bytes) {
    const auto after = pinned.upper_bound(address_of(start));
    if (after == pinned.begin()) return false;
    const auto& [first, size] = *std::prev(after);
    return address_of(start) + bytes <= first + size;
}

}  // namespace standin
