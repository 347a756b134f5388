// Streams, which only remember their work until somebody waits, and what is captured from them.
#pragma once
#include "standin.h"

#include <deque>
#include <memory>
#include <thread>

namespace standin {

// Who may disturb a capture.
enum class Mode { Global, ThreadLocal, Relaxed };

struct Capture {
    explicit Capture(Mode mode) : mode(mode) {}
    Mode mode;
    std::thread::id thread = std::this_thread::get_id();
    bool lost = false;
    std::vector<Work> work;
};

struct Stream {
    explicit Stream(bool alone) : alone(alone) {}
    // Whether it pays no attention to the legacy stream.
    bool alone;
    std::deque<Work> pending;
    // How much work was enqueued, and how much is done.
    uint64_t enqueued = 0, done = 0;
    std::unique_ptr<Capture> capture;
};

struct Graph {
    std::vector<Work> work;
};

struct Event {
    Stream* stream = nullptr;
    uint64_t sequence = 0;
};

// The stream of a handle; null for a handle that is none.
Stream* stream_of(const void* handle);

Stream* new_stream(bool alone);
void forget(Stream* stream);

// Runs the work of a stream up to a number, or all of it.
void run(Stream& stream, uint64_t last);

// An error of the device that every later call returns, as that of a context.
int device_error();
void fail(int error);

// Whether work that nobody waited for uses a module.
bool is_used(const void* module);

}  // namespace standin
