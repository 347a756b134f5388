// The driver: devices and contexts.
#include "memory.h"
#include "streams.h"

#include <cstdio>
#include <cstring>

using namespace standin;

static bool ready;
static uint64_t retained;
static int context;
static thread_local void* current;

static int major() { return static_cast<int>(setting("STANDIN_ARCHITECTURE", 80)) / 10; }
static int minor() { return static_cast<int>(setting("STANDIN_ARCHITECTURE", 80)) % 10; }

bool standin::has_context(const char* function) {
    Lock lock(state());
    if (current && retained > 0) return true;
    broken("%s: this thread has no current context", function);
    return false;
}

EXPORT int cuInit(unsigned flags) {
    Lock lock(state());
    if (flags) return refuse(INVALID_VALUE, "cuInit: flags are 0");
    ready = true;
    return SUCCESS;
}

EXPORT int cuDriverGetVersion(int* version) {
    *version = static_cast<int>(setting("STANDIN_DRIVER", 12040));
    return SUCCESS;
}

EXPORT int cuDeviceGetCount(int* count) {
    if (!ready) return refuse(NOT_INITIALIZED, "cuDeviceGetCount: cuInit comes first");
    *count = 1;
    return SUCCESS;
}

EXPORT int cuDeviceGet(int* device, int ordinal) {
    if (!ready) return refuse(NOT_INITIALIZED, "cuDeviceGet: cuInit comes first");
    if (ordinal) return refuse(INVALID_DEVICE, "cuDeviceGet: there is no device %d", ordinal);
    *device = 0;
    return SUCCESS;
}

EXPORT int cuDeviceGetName(char* name, int length, int device) {
    if (device) return refuse(INVALID_DEVICE, "cuDeviceGetName: there is no device %d", device);
    std::snprintf(name, static_cast<size_t>(length), "Stand-in");
    return SUCCESS;
}

EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (device) return refuse(INVALID_DEVICE, "cuDeviceGetAttribute: there is no device %d", device);
    switch (attribute) {
        case 75: *value = major(); return SUCCESS;
        case 76: *value = minor(); return SUCCESS;
        // Memory pools.
        case 115: *value = 1; return SUCCESS;
        default: return refuse(INVALID_VALUE, "cuDeviceGetAttribute: attribute %d is not known", attribute);
    }
}

EXPORT int cuDevicePrimaryCtxRetain(void** found, int device) {
    Lock lock(state());
    if (!ready) return refuse(NOT_INITIALIZED, "cuDevicePrimaryCtxRetain: cuInit comes first");
    if (device) return refuse(INVALID_DEVICE, "cuDevicePrimaryCtxRetain: there is no device %d", device);
    if (fails()) return OUT_OF_MEMORY;
    ++retained;
    made("contexts");
    *found = &context;
    return SUCCESS;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    Lock lock(state());
    if (device || retained == 0) return refuse(INVALID_CONTEXT, "cuDevicePrimaryCtxRelease: it is not retained");
    --retained;
    given_back("contexts");
    if (retained == 0) {
        finish_all("cuDevicePrimaryCtxRelease");
        end_all();
        fail(SUCCESS);
    }
    return SUCCESS;
}

EXPORT int cuCtxGetCurrent(void** found) {
    if (!ready) return refuse(NOT_INITIALIZED, "cuCtxGetCurrent: cuInit comes first");
    *found = current;
    return SUCCESS;
}

EXPORT int cuCtxSetCurrent(void* chosen) {
    Lock lock(state());
    if (chosen && (chosen != &context || retained == 0))
        return refuse(INVALID_CONTEXT, "cuCtxSetCurrent: there is no such context");
    current = chosen;
    return SUCCESS;
}

EXPORT int cuCtxSynchronize() {
    Lock lock(state());
    if (!has_context("cuCtxSynchronize")) return INVALID_CONTEXT;
    return finish_all("cuCtxSynchronize");
}

EXPORT int cuGetErrorString(int error, const char** text) {
    switch (error) {
        case SUCCESS: *text = "no error"; break;
        case INVALID_VALUE: *text = "invalid argument"; break;
        case OUT_OF_MEMORY: *text = "out of memory"; break;
        case UNSUPPORTED_PTX_VERSION: *text = "the provided PTX was compiled with an unsupported toolchain"; break;
        case INVALID_CONTEXT: *text = "invalid device context"; break;
        case ILLEGAL_ADDRESS: *text = "an illegal memory access was encountered"; break;
        default: *text = "another error"; break;
    }
    return SUCCESS;
}
