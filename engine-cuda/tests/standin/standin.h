// What the stand-ins for NVIDIA's libraries share. The driver's keeps the state; the others call it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#define EXPORT extern "C"

// Errors of the driver.
enum Result {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_IMPLICIT = 906,
    CAPTURE_WRONG_THREAD = 908,
};

namespace standin {

// One lock is around all state, and around the work itself.
std::recursive_mutex& state();
using Lock = std::lock_guard<std::recursive_mutex>;

// Notes that a rule was broken, on a line of stderr. Reports are counted.
__attribute__((format(printf, 1, 2))) void broken(const char* format, ...);

// The same, with an error to return.
template <typename... A>
int refuse(int error, const char* format, A... values) {
    broken(format, values...);
    return error;
}

// Counts what was made and not given back, by kind.
void made(const char* kind);
void given_back(const char* kind);

// The folder of the libraries and the header of kernels, where other files go too.
std::string folder();

// A number of the environment.
uint64_t setting(const char* name, uint64_t otherwise);

// Memory that a piece of work reads or writes.
struct Access {
    uint64_t address;
    size_t bytes;
    const char* what;

    bool overlaps(const Access& other) const {
        return address < other.address + other.bytes && other.address < address + bytes;
    }
};

// Work for a stream. `from` and `to` are checked when it is enqueued and again when it runs.
struct Work {
    std::string name;
    std::vector<Access> accesses;
    std::function<void()> run;
    // What it must find alive when it runs.
    const void* module = nullptr;
};

struct Stream;

// Whether memory is allocated: as the stream will find it after what is enqueued, or now.
enum class When { Enqueued, Now };
bool allocated(const Access& access, When when, const std::string& by);

// The context that is current on this thread; reports its absence.
bool has_context(const char* function);

// Whether a handle is that of a stream; null is the legacy stream.
bool is_stream(const void* stream);

// Waits for the whole device.
int finish_all(const char* function);

// An error of the driver if anybody captures; the capture is lost.
int no_capture(const char* function);

// Whether this call should fail: a test wants to see what is left behind. Failures move on from call to call.
bool fails();

// Puts work on a stream, or into the graph that is captured from it. An error of the driver.
int enqueue(void* stream, Work work);

// Runs what is on a stream. An error of the driver while it is captured.
int finish(void* stream, const char* function);

// An error of the driver if this thread captures; the capture is lost.
int unsafe_in_capture(const char* function);

// Addresses as pointers; the memory of the device is that of this process.
template <typename T>
T* at(uint64_t address) {
    return reinterpret_cast<T*>(address);
}
inline uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

}  // namespace standin
