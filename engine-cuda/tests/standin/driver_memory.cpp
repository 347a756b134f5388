// The driver: allocations and copies.
#include "memory.h"
#include "streams.h"

#include <cstring>

using namespace standin;

static const char* reason(Freed freed) {
    switch (freed) {
        case Freed::Twice: return "it was given back before";
        case Freed::Inside: return "it is inside an allocation";
        default: return "it was never allocated";
    }
}

EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
    Lock lock(state());
    if (!has_context("cuMemGetInfo")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    *total = capacity();
    *free = capacity() - taken();
    return SUCCESS;
}

// The pool of allocations in the order of a stream.
static char default_pool;

enum PoolAttribute { RELEASE_THRESHOLD = 4, RESERVED_MEM_CURRENT = 5, USED_MEM_CURRENT = 7 };

EXPORT int cuDeviceGetDefaultMemPool(void** pool, int device) {
    Lock lock(state());
    if (fails()) return OUT_OF_MEMORY;
    if (device) return refuse(INVALID_DEVICE, "cuDeviceGetDefaultMemPool: there is no device %d", device);
    *pool = &default_pool;
    return SUCCESS;
}

EXPORT int cuMemPoolSetAttribute(void* pool, int attribute, void* value) {
    Lock lock(state());
    if (fails()) return OUT_OF_MEMORY;
    if (pool != &default_pool || !value || attribute != RELEASE_THRESHOLD)
        return refuse(INVALID_VALUE, "cuMemPoolSetAttribute: attribute %d, or another pool", attribute);
    set_threshold(*static_cast<uint64_t*>(value));
    return SUCCESS;
}

EXPORT int cuMemPoolGetAttribute(void* pool, int attribute, void* value) {
    Lock lock(state());
    if (fails()) return OUT_OF_MEMORY;
    const bool known = attribute == RESERVED_MEM_CURRENT || attribute == USED_MEM_CURRENT;
    if (pool != &default_pool || !value || !known)
        return refuse(INVALID_VALUE, "cuMemPoolGetAttribute: attribute %d, or another pool", attribute);
    *static_cast<uint64_t*>(value) = attribute == RESERVED_MEM_CURRENT ? reserved() : taken_from_pool();
    return SUCCESS;
}

EXPORT int cuMemPoolTrimTo(void* pool, size_t keep) {
    Lock lock(state());
    if (fails()) return OUT_OF_MEMORY;
    if (int error = no_capture("cuMemPoolTrimTo")) return error;
    if (pool != &default_pool) return refuse(INVALID_VALUE, "cuMemPoolTrimTo: another pool");
    trim(keep);
    return SUCCESS;
}

EXPORT int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    Lock lock(state());
    if (!has_context("cuMemAlloc")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (int error = unsafe_in_capture("cuMemAlloc")) return error;
    if (!bytes) return refuse(INVALID_VALUE, "cuMemAlloc: no bytes");
    const uint64_t found = take(bytes, nullptr);
    if (!found) return OUT_OF_MEMORY;
    begin(found);
    *address = found;
    return SUCCESS;
}

// Memory that is allocated into a graph lives while the graph runs, which is not what the engine means; and a graph cannot
// give back memory that it did not allocate.
static int in_capture(void* stream, const char* function) {
    Stream* found = stream_of(stream);
    if (!found) return refuse(INVALID_HANDLE, "%s: there is no such stream", function);
    if (!found->capture) return SUCCESS;
    found->capture->lost = true;
    return refuse(INVALID_VALUE, "%s: the stream is captured", function);
}

EXPORT int cuMemAllocAsync(uint64_t* address, size_t bytes, void* stream) {
    Lock lock(state());
    if (!has_context("cuMemAllocAsync")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (!bytes) return refuse(INVALID_VALUE, "cuMemAllocAsync: no bytes");
    if (int error = in_capture(stream, "cuMemAllocAsync")) return error;
    const uint64_t found = take(bytes, stream_of(stream));
    if (!found) return OUT_OF_MEMORY;
    *address = found;
    return enqueue(stream, {"cuMemAllocAsync", {}, [found] { begin(found); }});
}

EXPORT int cuMemFreeAsync(uint64_t address, void* stream) {
    Lock lock(state());
    if (!has_context("cuMemFreeAsync")) return INVALID_CONTEXT;
    if (int error = in_capture(stream, "cuMemFreeAsync")) return error;
    const Freed freed = release(address);
    if (freed != Freed::Yes)
        return refuse(INVALID_VALUE, "cuMemFreeAsync: 0x%llx: %s", static_cast<unsigned long long>(address), reason(freed));
    return enqueue(stream, {"cuMemFreeAsync", {}, [address] { end(address); }});
}

EXPORT int cuMemHostAlloc(void** start, size_t bytes, unsigned flags) {
    Lock lock(state());
    if (!has_context("cuMemHostAlloc")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (int error = unsafe_in_capture("cuMemHostAlloc")) return error;
    if (!bytes || flags) return refuse(INVALID_VALUE, "cuMemHostAlloc: %zu bytes, flags %u", bytes, flags);
    *start = pin(bytes);
    return *start ? SUCCESS : OUT_OF_MEMORY;
}

EXPORT int cuMemFreeHost(void* start) {
    Lock lock(state());
    if (!has_context("cuMemFreeHost")) return INVALID_CONTEXT;
    if (int error = unsafe_in_capture("cuMemFreeHost")) return error;
    return unpin(start) ? SUCCESS : refuse(INVALID_VALUE, "cuMemFreeHost: this is not pinned");
}

// Pageable memory is read at once; what is pinned is read when the device comes to the copy.
static Work upload(const char* name, uint64_t to, const void* from, size_t bytes) {
    std::function<void()> copy;
    if (is_pinned(from, bytes)) {
        copy = [=] {
            if (is_pinned(from, bytes))
                std::memcpy(at<void>(to), from, bytes);
            else
                broken("%s: the pinned memory was given back before it was read", name);
        };
    } else {
        const auto* first = static_cast<const unsigned char*>(from);
        const std::vector<unsigned char> staged(first, first + bytes);
        copy = [=] { std::memcpy(at<void>(to), staged.data(), bytes); };
    }
    return {name, {{to, bytes, "the target"}}, copy};
}

// Synchronous copies use the legacy stream, for which a stream that is alone does not wait.
EXPORT int cuMemcpyHtoD_v2(uint64_t to, const void* from, size_t bytes) {
    Lock lock(state());
    if (!has_context("cuMemcpyHtoD")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (int error = unsafe_in_capture("cuMemcpyHtoD")) return error;
    if (!bytes) return SUCCESS;
    if (int error = finish(nullptr, "cuMemcpyHtoD")) return error;
    const bool whole = is_pinned(from, bytes);
    if (int error = enqueue(nullptr, upload("cuMemcpyHtoD", to, from, bytes))) return error;
    // From pageable memory it returns when the numbers are staged; they need not have come to the device.
    return whole ? finish(nullptr, "cuMemcpyHtoD") : SUCCESS;
}

EXPORT int cuMemcpyDtoH_v2(void* to, uint64_t from, size_t bytes) {
    Lock lock(state());
    if (!has_context("cuMemcpyDtoH")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (int error = unsafe_in_capture("cuMemcpyDtoH")) return error;
    if (!bytes) return SUCCESS;
    const auto copy = [=] { std::memcpy(to, at<void>(from), bytes); };
    if (int error = enqueue(nullptr, {"cuMemcpyDtoH", {{from, bytes, "the source"}}, copy})) return error;
    return finish(nullptr, "cuMemcpyDtoH");
}

EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    Lock lock(state());
    if (!has_context("cuMemcpyHtoDAsync")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (!bytes) return SUCCESS;
    return enqueue(stream, upload("cuMemcpyHtoDAsync", to, from, bytes));
}

EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    Lock lock(state());
    if (!has_context("cuMemcpyDtoHAsync")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (!bytes) return SUCCESS;
    const auto copy = [=] { std::memcpy(to, at<void>(from), bytes); };
    return enqueue(stream, {"cuMemcpyDtoHAsync", {{from, bytes, "the source"}}, copy});
}

EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    Lock lock(state());
    if (!has_context("cuMemcpyDtoDAsync")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (!bytes) return SUCCESS;
    if (to < from + bytes && from < to + bytes && to != from) broken("cuMemcpyDtoDAsync: source and target overlap");
    const auto copy = [=] { std::memmove(at<void>(to), at<void>(from), bytes); };
    return enqueue(stream, {"cuMemcpyDtoDAsync", {{from, bytes, "the source"}, {to, bytes, "the target"}}, copy});
}
