// The driver: streams, events, captures and graphs.
#include "memory.h"
#include "streams.h"

#include <set>

using namespace standin;

static std::set<void*> events, graphs, executables;

// Makes a handle that is counted and known.
template <typename T>
static T* known(std::set<void*>& all, const char* kind, T value) {
    T* found = new T(std::move(value));
    all.insert(found);
    made(kind);
    return found;
}

template <typename T>
static int forget_known(std::set<void*>& all, const char* kind, void* handle, const char* function) {
    if (!all.erase(handle)) return refuse(INVALID_HANDLE, "%s: there is no such handle", function);
    delete static_cast<T*>(handle);
    given_back(kind);
    return SUCCESS;
}

EXPORT int cuStreamCreate(void** stream, unsigned flags) {
    Lock lock(state());
    if (!has_context("cuStreamCreate")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (flags > 1) return refuse(INVALID_VALUE, "cuStreamCreate: flags are %u", flags);
    *stream = new_stream(flags == 1);
    return SUCCESS;
}

EXPORT int cuStreamDestroy_v2(void* handle) {
    Lock lock(state());
    if (!has_context("cuStreamDestroy")) return INVALID_CONTEXT;
    Stream* stream = stream_of(handle);
    if (!handle || !stream) return refuse(INVALID_HANDLE, "cuStreamDestroy: there is no such stream");
    if (stream->capture) broken("cuStreamDestroy: the stream is captured");
    // Its work is done all the same.
    run(*stream, stream->enqueued);
    forget(stream);
    return SUCCESS;
}

EXPORT int cuStreamSynchronize(void* stream) {
    Lock lock(state());
    if (!has_context("cuStreamSynchronize")) return INVALID_CONTEXT;
    if (int error = unsafe_in_capture("cuStreamSynchronize")) return error;
    return finish(stream, "cuStreamSynchronize");
}

EXPORT int cuEventCreate(void** event, unsigned flags) {
    Lock lock(state());
    if (!has_context("cuEventCreate")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (flags > 7) return refuse(INVALID_VALUE, "cuEventCreate: flags are %u", flags);
    *event = known(events, "events", Event{});
    return SUCCESS;
}

EXPORT int cuEventDestroy_v2(void* event) {
    Lock lock(state());
    if (!has_context("cuEventDestroy")) return INVALID_CONTEXT;
    return forget_known<Event>(events, "events", event, "cuEventDestroy");
}

EXPORT int cuEventRecord(void* event, void* handle) {
    Lock lock(state());
    if (!has_context("cuEventRecord")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    Stream* stream = stream_of(handle);
    if (!events.count(event) || !stream) return refuse(INVALID_HANDLE, "cuEventRecord: there is no such event or stream");
    if (stream->capture) return refuse(INVALID_VALUE, "cuEventRecord: this stand-in captures no events");
    *static_cast<Event*>(event) = {handle ? stream : nullptr, stream->enqueued};
    return device_error();
}

EXPORT int cuEventSynchronize(void* handle) {
    Lock lock(state());
    if (!has_context("cuEventSynchronize")) return INVALID_CONTEXT;
    if (int error = unsafe_in_capture("cuEventSynchronize")) return error;
    if (!events.count(handle)) return refuse(INVALID_HANDLE, "cuEventSynchronize: there is no such event");
    const Event& event = *static_cast<Event*>(handle);
    // What was on a stream that is destroyed is done.
    if (Stream* stream = stream_of(event.stream)) run(*stream, event.sequence);
    trim_as_set();
    return device_error();
}

EXPORT int cuStreamBeginCapture_v2(void* handle, unsigned mode) {
    Lock lock(state());
    if (!has_context("cuStreamBeginCapture")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    Stream* stream = stream_of(handle);
    if (!stream) return refuse(INVALID_HANDLE, "cuStreamBeginCapture: there is no such stream");
    if (!handle) return refuse(CAPTURE_UNSUPPORTED, "cuStreamBeginCapture: the legacy stream is not captured");
    if (stream->capture || mode > 2) return refuse(INVALID_VALUE, "cuStreamBeginCapture: mode %u, or captured already", mode);
    stream->capture.reset(new Capture(static_cast<Mode>(mode)));
    return SUCCESS;
}

EXPORT int cuStreamEndCapture(void* handle, void** graph) {
    Lock lock(state());
    if (!has_context("cuStreamEndCapture")) return INVALID_CONTEXT;
    *graph = nullptr;
    Stream* stream = stream_of(handle);
    if (!stream || !stream->capture) return refuse(INVALID_VALUE, "cuStreamEndCapture: the stream is not captured");
    const bool same = stream->capture->thread == std::this_thread::get_id();
    if (!same && stream->capture->mode != Mode::Relaxed)
        return refuse(CAPTURE_WRONG_THREAD, "cuStreamEndCapture: another thread began the capture");
    const std::unique_ptr<Capture> capture = std::move(stream->capture);
    if (fails()) return OUT_OF_MEMORY;
    if (capture->lost) return refuse(CAPTURE_INVALIDATED, "cuStreamEndCapture: the capture is lost");
    *graph = known(graphs, "graphs", Graph{std::move(capture->work)});
    return SUCCESS;
}

EXPORT int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
    Lock lock(state());
    if (!has_context("cuGraphInstantiate")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (!graphs.count(graph)) return refuse(INVALID_HANDLE, "cuGraphInstantiate: there is no such graph");
    if (flags) return refuse(INVALID_VALUE, "cuGraphInstantiate: flags are %llu", flags);
    *executable = known(executables, "executable graphs", *static_cast<Graph*>(graph));
    return SUCCESS;
}

EXPORT int cuGraphLaunch(void* executable, void* stream) {
    Lock lock(state());
    if (!has_context("cuGraphLaunch")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (!executables.count(executable)) return refuse(INVALID_HANDLE, "cuGraphLaunch: there is no such graph");
    for (const Work& work : static_cast<Graph*>(executable)->work)
        if (int error = enqueue(stream, work)) return error;
    return SUCCESS;
}

EXPORT int cuGraphExecDestroy(void* executable) {
    Lock lock(state());
    if (!has_context("cuGraphExecDestroy")) return INVALID_CONTEXT;
    return forget_known<Graph>(executables, "executable graphs", executable, "cuGraphExecDestroy");
}

EXPORT int cuGraphDestroy(void* graph) {
    Lock lock(state());
    if (!has_context("cuGraphDestroy")) return INVALID_CONTEXT;
    return forget_known<Graph>(graphs, "graphs", graph, "cuGraphDestroy");
}
