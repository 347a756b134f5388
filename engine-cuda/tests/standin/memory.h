// Memory of the device, and memory of the host that is pinned.
#pragma once
#include "standin.h"

namespace standin {

// Takes memory, for a stream from now on in its order. Zero if the device is full.
uint64_t take(size_t bytes, Stream* stream);

// From here on the stream, or the device, may not use it.
enum class Freed { Yes, Unknown, Twice, Inside };
Freed release(uint64_t address);

// The device has come to the allocation, or to the end of it.
void begin(uint64_t address);
void end(uint64_t address);

// All memory is given back with the context.
void end_all();

// Bytes of the device, and those of them that are taken now.
size_t capacity();
size_t taken();
size_t taken_from_pool();

// The pool keeps what is given back: all of it until somebody waits, then so many bytes.
void set_threshold(uint64_t bytes);
uint64_t reserved();
// Gives back what nobody uses, as long as the pool has more than so many bytes.
void trim(uint64_t keep);
// Somebody waits.
void trim_as_set();

// Pinned memory.
void* pin(size_t bytes);
bool unpin(void* start);
bool is_pinned(const void* start, size_t bytes);

}  // namespace standin
