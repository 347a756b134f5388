#include "streams.h"
#include "memory.h"

#include <csignal>
#include <set>
#include <unistd.h>

namespace standin {

static std::set<Stream*> streams;
static int error_of_device;
// What runs now, for a signal handler.
static const char* running = "nothing";

static Stream& legacy() {
    static auto* stream = new Stream{false};
    return *stream;
}

Stream* stream_of(const void* handle) {
    if (!handle) return &legacy();
    Stream* stream = static_cast<Stream*>(const_cast<void*>(handle));
    return streams.count(stream) ? stream : nullptr;
}

bool is_stream(const void* handle) { return stream_of(handle) != nullptr; }

static void touched(int) {
    const auto say = [](const char* text) { (void)!write(2, text, __builtin_strlen(text)); };
    say("stand-in: ");
    say(running);
    say(" touched memory that is not allocated\n");
    std::signal(SIGSEGV, SIG_DFL);
}

Stream* new_stream(bool alone) {
    std::signal(SIGSEGV, touched);
    Stream* stream = new Stream{alone};
    streams.insert(stream);
    made("streams");
    return stream;
}

void forget(Stream* stream) {
    streams.erase(stream);
    delete stream;
    given_back("streams");
}

int device_error() { return error_of_device; }
void fail(int error) { error_of_device = error; }

void run(Stream& stream, uint64_t last) {
    while (stream.done < last && !stream.pending.empty()) {
        const Work work = std::move(stream.pending.front());
        stream.pending.pop_front();
        ++stream.done;
        bool good = error_of_device == SUCCESS;
        for (const Access& access : work.accesses) good = good && allocated(access, When::Now, work.name);
        if (!good) {
            fail(ILLEGAL_ADDRESS);
            continue;
        }
        running = work.name.c_str();
        work.run();
        running = "nothing";
    }
}

// Work of the legacy stream would be part of the capture of a stream that waits for it.
static int implicit(const char* function) {
    for (Stream* stream : streams) {
        if (stream->alone || !stream->capture) continue;
        stream->capture->lost = true;
        return refuse(CAPTURE_IMPLICIT, "%s: a stream that waits for the legacy stream is captured", function);
    }
    return SUCCESS;
}

int enqueue(void* handle, Work work) {
    Stream* stream = stream_of(handle);
    if (!stream) return refuse(INVALID_HANDLE, "%s: there is no such stream", work.name.c_str());
    if (error_of_device) return error_of_device;
    for (const Access& access : work.accesses)
        if (!allocated(access, When::Enqueued, work.name)) return INVALID_VALUE;
    if (Capture* capture = stream->capture.get()) {
        if (capture->lost) return refuse(CAPTURE_INVALIDATED, "%s: the capture is lost", work.name.c_str());
        capture->work.push_back(std::move(work));
        return SUCCESS;
    }
    // The legacy stream and streams that are not alone wait for one another.
    if (stream == &legacy()) {
        if (int error = implicit(work.name.c_str())) return error;
        for (Stream* other : streams)
            if (!other->alone) run(*other, other->enqueued);
    } else if (!stream->alone) {
        run(legacy(), legacy().enqueued);
    }
    stream->pending.push_back(std::move(work));
    ++stream->enqueued;
    return SUCCESS;
}

int finish(void* handle, const char* function) {
    Stream* stream = stream_of(handle);
    if (!stream) return refuse(INVALID_HANDLE, "%s: there is no such stream", function);
    if (stream->capture) {
        stream->capture->lost = true;
        return refuse(CAPTURE_UNSUPPORTED, "%s: the stream is captured", function);
    }
    if (stream == &legacy())
        if (int error = implicit(function)) return error;
    run(*stream, stream->enqueued);
    trim_as_set();
    return error_of_device;
}

int no_capture(const char* function) {
    for (Stream* stream : streams) {
        if (!stream->capture) continue;
        stream->capture->lost = true;
        return refuse(CAPTURE_UNSUPPORTED, "%s: a stream is captured", function);
    }
    return SUCCESS;
}

int finish_all(const char* function) {
    if (int error = no_capture(function)) return error;
    for (Stream* stream : streams) run(*stream, stream->enqueued);
    run(legacy(), legacy().enqueued);
    trim_as_set();
    return error_of_device;
}

int unsafe_in_capture(const char* function) {
    for (Stream* stream : streams) {
        Capture* capture = stream->capture.get();
        if (!capture || capture->mode == Mode::Relaxed) continue;
        if (capture->mode == Mode::ThreadLocal && capture->thread != std::this_thread::get_id()) continue;
        capture->lost = true;
        return refuse(CAPTURE_UNSUPPORTED, "%s: not while a stream is captured", function);
    }
    return SUCCESS;
}

bool is_used(const void* module) {
    for (Stream* stream : streams)
        for (const Work& work : stream->pending)
            if (work.module == module) return true;
    return false;
}

}  // namespace standin
