// The driver: modules and launches. A module is a shared library that the compiler's stand-in made.
#define OWN
#include "../common/cuda.h"
#include "../common/threads.h"

#include "entry.h"
#include "streams.h"

#include <cstdio>
#include <dlfcn.h>
#include <elf.h>
#include <memory>
#include <set>
#include <sys/mman.h>
#include <unistd.h>

using namespace standin;

struct Module;

struct Function {
    Module* module;
    const Entry* entry;
};

struct Module {
    void* library;
    std::vector<std::unique_ptr<Function>> functions;
};

// Bytes of parameters that every device takes.
constexpr size_t PARAMETERS = 4096;

static std::set<Module*> modules;
static std::set<const Function*> functions;

static int architecture() { return static_cast<int>(setting("STANDIN_ARCHITECTURE", 80)); }

// Machine code is a whole file of ELF; intermediate code is a text that ends with a zero, with such a file in hexadecimal
// digits on its last line.
static int code_of(const char* image, std::vector<char>& code) {
    if (std::memcmp(image, ELFMAG, SELFMAG) == 0) {
        Elf64_Ehdr header;
        std::memcpy(&header, image, sizeof header);
        const size_t size = header.e_shoff + size_t{header.e_shentsize} * header.e_shnum;
        code.assign(image, image + size);
        return SUCCESS;
    }
    const std::string text = image;
    if (text.rfind("//", 0) != 0) return INVALID_IMAGE;
    int version = 0;
    std::sscanf(text.c_str(), "// Intermediate code of version %d", &version);
    // The driver compiles no code of a compiler that is newer.
    if (version > static_cast<int>(setting("STANDIN_DRIVER", 12040))) return UNSUPPORTED_PTX_VERSION;
    const size_t last = text.find_last_of('\n');
    if (last == std::string::npos || (text.size() - last - 1) % 2)
        return refuse(INVALID_PTX, "cuModuleLoadData: this is no text of code");
    const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
    for (size_t i = last + 1; i < text.size(); i += 2)
        code.push_back(static_cast<char>(digit(text[i]) * 16 + digit(text[i + 1])));
    return SUCCESS;
}

static void* opened(const std::vector<char>& code) {
    // Kernels find the state of threads here, however this library was opened.
    dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD);
    const int file = memfd_create("module", 0);
    if (file < 0 || write(file, code.data(), code.size()) != static_cast<ssize_t>(code.size())) return nullptr;
    // A library is known by its path, and numbers of files come again.
    static uint64_t number;
    const std::string link =
        folder() + "/module-" + std::to_string(getpid()) + "-" + std::to_string(++number) + ".so";
    char path[64];
    std::snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    void* library = symlink(path, link.c_str()) == 0 ? dlopen(link.c_str(), RTLD_NOW | RTLD_LOCAL) : nullptr;
    unlink(link.c_str());
    close(file);
    return library;
}

EXPORT int cuModuleLoadData(void** found, const void* image) {
    Lock lock(state());
    if (!has_context("cuModuleLoadData")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    if (int error = unsafe_in_capture("cuModuleLoadData")) return error;
    std::vector<char> code;
    if (int error = code_of(static_cast<const char*>(image), code)) return error;
    void* library = opened(code);
    if (!library) return refuse(INVALID_IMAGE, "cuModuleLoadData: %s", dlerror());
    const auto* target = static_cast<const int*>(dlsym(library, "standin_target"));
    const auto* entries = static_cast<const Entry*>(dlsym(library, "standin_kernels"));
    const bool text = std::memcmp(image, ELFMAG, SELFMAG) != 0;
    // Machine code runs on its own generation only, intermediate code on what is newer as well.
    const bool fits = target && *target <= architecture() && (text || *target / 10 == architecture() / 10);
    if (!fits || !entries) {
        dlclose(library);
        return refuse(NO_BINARY_FOR_GPU, "cuModuleLoadData: the code is for another architecture");
    }
    auto* module = new Module{library, {}};
    for (const Entry* entry = entries; entry->name; ++entry)
        module->functions.push_back(std::make_unique<Function>(Function{module, entry}));
    modules.insert(module);
    made("modules");
    *found = module;
    return SUCCESS;
}

EXPORT int cuModuleGetFunction(const void** found, void* handle, const char* name) {
    Lock lock(state());
    if (!has_context("cuModuleGetFunction")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    auto* module = static_cast<Module*>(handle);
    if (!modules.count(module)) return refuse(INVALID_HANDLE, "cuModuleGetFunction: there is no such module");
    for (const auto& function : module->functions) {
        if (std::strcmp(function->entry->name, name) != 0) continue;
        functions.insert(function.get());
        *found = function.get();
        return SUCCESS;
    }
    return refuse(NOT_FOUND, "cuModuleGetFunction: there is no kernel %s", name);
}

EXPORT int cuModuleUnload(void* handle) {
    Lock lock(state());
    if (!has_context("cuModuleUnload")) return INVALID_CONTEXT;
    if (int error = unsafe_in_capture("cuModuleUnload")) return error;
    auto* module = static_cast<Module*>(handle);
    if (!modules.erase(module)) return refuse(INVALID_HANDLE, "cuModuleUnload: there is no such module");
    if (is_used(module)) broken("cuModuleUnload: a kernel of the module has not run yet");
    for (const auto& function : module->functions) functions.erase(function.get());
    dlclose(module->library);
    delete module;
    given_back("modules");
    return SUCCESS;
}

// A launch's parameters, which the call copies.
struct Parameters {
    std::vector<std::vector<char>> bytes;
};

EXPORT int cuLaunchKernel(const void* handle, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                          unsigned threads_z, unsigned shared, void* stream, void** values, void** extra) {
    // Other threads have time to disturb what this one does.
    if (const uint64_t pause = setting("STANDIN_LAUNCH_MICROSECONDS", 0)) usleep(static_cast<useconds_t>(pause));
    Lock lock(state());
    if (!has_context("cuLaunchKernel")) return INVALID_CONTEXT;
    if (fails()) return OUT_OF_MEMORY;
    const auto* function = static_cast<const Function*>(handle);
    if (!functions.count(function)) return refuse(INVALID_HANDLE, "cuLaunchKernel: there is no such kernel");
    const Entry& entry = *function->entry;
    if (x == 0 || x > 0x7fffffffu || y != 1 || z != 1)
        return refuse(INVALID_VALUE, "%s: a grid of %u, %u, %u blocks", entry.name, x, y, z);
    if (threads_x != THREADS || threads_y != 1 || threads_z != 1 || shared || extra)
        return refuse(INVALID_VALUE, "%s: blocks of %u threads, %u bytes shared", entry.name, threads_x, shared);
    auto given = std::make_shared<Parameters>();
    Work work{std::string("kernel ") + entry.name, {}, nullptr, function->module};
    size_t total = 0;
    for (unsigned i = 0; i < entry.count; ++i) {
        const auto* first = static_cast<const char*>(values[i]);
        given->bytes.emplace_back(first, first + entry.sizes[i]);
        total += entry.sizes[i];
        // All parameters are addresses, or structures of addresses.
        for (size_t place = 0; place + 8 <= entry.sizes[i]; place += 8) {
            uint64_t address;
            std::memcpy(&address, first + place, 8);
            work.accesses.push_back({address, 1, "a parameter"});
        }
    }
    if (total > PARAMETERS) return refuse(INVALID_VALUE, "%s: %zu bytes of parameters", entry.name, total);
    work.run = [given, &entry, x] {
        std::vector<void*> pointers;
        for (auto& bytes : given->bytes) pointers.push_back(bytes.data());
        struct Call {
            void (*call)(void**);
            void** values;
        } call{entry.call, pointers.data()};
        run_blocks(x, entry.syncs, [](void* c) { static_cast<Call*>(c)->call(static_cast<Call*>(c)->values); }, &call);
    };
    return enqueue(stream, std::move(work));
}
