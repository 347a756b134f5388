// Rules that were broken, and what was not given back. At the end a file gets both, for a test to read.
#include "standin.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <map>

namespace standin {

static uint64_t reports;

// A map that outlives destructors of other libraries.
static std::map<std::string, int64_t>& alive() {
    static auto* found = new std::map<std::string, int64_t>;
    return *found;
}

std::recursive_mutex& state() {
    static auto* lock = new std::recursive_mutex;
    return *lock;
}

void broken(const char* format, ...) {
    Lock lock(state());
    ++reports;
    va_list values;
    va_start(values, format);
    std::fputs("stand-in: ", stderr);
    std::vfprintf(stderr, format, values);
    std::fputc('\n', stderr);
    va_end(values);
}

void made(const char* kind) {
    Lock lock(state());
    ++alive()[kind];
}

void given_back(const char* kind) {
    Lock lock(state());
    --alive()[kind];
}

std::string folder() {
    static const int place = 0;
    Dl_info info{};
    dladdr(&place, &info);
    const std::string file = info.dli_fname;
    return file.substr(0, file.find_last_of('/'));
}

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

bool fails() {
    Lock lock(state());
    static const uint64_t step = setting("STANDIN_FAILURES", 0);
    static uint64_t wait = step, calls;
    if (!step || ++calls < wait) return false;
    // The next one comes later than this one did.
    wait += step;
    calls = 0;
    return true;
}

__attribute__((destructor)) static void report() {
    const char* name = std::getenv("STANDIN_REPORT");
    FILE* file = name ? std::fopen(name, "w") : nullptr;
    if (!file) return;
    std::fprintf(file, "rules broken: %llu\n", static_cast<unsigned long long>(reports));
    for (const auto& [kind, count] : alive())
        if (count) std::fprintf(file, "not given back: %lld %s\n", static_cast<long long>(count), kind.c_str());
    std::fclose(file);
}

}  // namespace standin
