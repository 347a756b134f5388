// The compiler: a C++ compiler that makes shared libraries.
#include "standin.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <unistd.h>

using namespace standin;

enum {
    NVRTC_SUCCESS = 0,
    NVRTC_OUT_OF_MEMORY = 1,
    NVRTC_INVALID_INPUT = 3,
    NVRTC_INVALID_PROGRAM = 4,
    NVRTC_INVALID_OPTION = 5,
    NVRTC_COMPILATION = 6,
    NVRTC_INTERNAL = 11
};

static const int VERSION[] = {12, 4};
static const int ARCHITECTURES[] = {70, 75, 80, 86, 89, 90};

struct Program {
    std::string source, log;
    // What was made, for an architecture that is virtual or real.
    std::string code;
    bool is_virtual = false;
    bool compiled = false;
};

static std::set<Program*> programs;

static Program* program_of(void* handle, const char* function) {
    auto* program = static_cast<Program*>(handle);
    if (programs.count(program)) return program;
    broken("%s: there is no such program", function);
    return nullptr;
}

static std::string read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

EXPORT int nvrtcVersion(int* major, int* minor) {
    *major = VERSION[0];
    *minor = VERSION[1];
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcGetNumSupportedArchs(int* count) {
    *count = static_cast<int>(std::size(ARCHITECTURES));
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcGetSupportedArchs(int* found) {
    std::copy(std::begin(ARCHITECTURES), std::end(ARCHITECTURES), found);
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcCreateProgram(void** found, const char* source, const char*, int headers, const char* const*,
                              const char* const*) {
    Lock lock(state());
    if (!source || headers) return refuse(NVRTC_INVALID_INPUT, "nvrtcCreateProgram: %d headers", headers);
    if (fails()) return NVRTC_OUT_OF_MEMORY;
    auto* program = new Program{source, {}, {}};
    programs.insert(program);
    made("programs");
    *found = program;
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcDestroyProgram(void** handle) {
    Lock lock(state());
    Program* program = program_of(*handle, "nvrtcDestroyProgram");
    if (!program) return NVRTC_INVALID_PROGRAM;
    programs.erase(program);
    delete program;
    given_back("programs");
    *handle = nullptr;
    return NVRTC_SUCCESS;
}

// The list of kernels, which the driver looks for.
static std::string entries(const std::string& source, int target) {
    const std::string head = "__global__ void ";
    std::string list;
    for (size_t first = source.find(head); first != std::string::npos;) {
        const size_t name_at = first + head.size();
        const size_t next = source.find(head, name_at);
        const std::string name = source.substr(name_at, source.find('(', name_at) - name_at);
        const std::string body = source.substr(name_at, next == std::string::npos ? next : next - name_at);
        const bool syncs = body.find("__syncthreads") != std::string::npos || body.find("_sync(") != std::string::npos;
        list += "    Of<&" + name + ">::entry(\"" + name + "\", " + (syncs ? "true" : "false") + "),\n";
        first = next;
    }
    return "\nextern \"C\" { extern const Entry standin_kernels[]; extern const int standin_target; }\nconst int "
           "standin_target = " +
           std::to_string(target) + ";\nconst Entry standin_kernels[] = {\n" + list + "    LAST,\n};\n";
}

// Compiles a text.
static bool built(Program& program, int target) {
    std::string own = folder() + "/nvrtc-XXXXXX";
    if (!mkdtemp(own.data())) return false;
    const auto file = [&](const char* name) { return own + "/" + name; };
    std::ofstream(file("kernel.cpp")) << "#include \"kernel.h\"\n" << program.source << entries(program.source, target);
    const char* compiler = std::getenv("STANDIN_COMPILER");
    const std::string command = std::string(compiler ? compiler : "c++") +
                                " -std=c++17 -w -O0 -fPIC -shared -ffp-contract=off -I" + folder() + " -o " +
                                file("kernel.so") + " " + file("kernel.cpp") + " 2> " + file("log");
    const bool good = std::system(command.c_str()) == 0;
    program.log = read(file("log"));
    program.code = good ? read(file("kernel.so")) : "";
    for (const char* name : {"kernel.cpp", "kernel.so", "log"}) unlink(file(name).c_str());
    rmdir(own.c_str());
    return good;
}

// The number of an architecture after a prefix, or zero.
static int target_of(const std::string& option, const char* prefix) {
    return option.rfind(prefix, 0) == 0 ? std::atoi(option.c_str() + std::strlen(prefix)) : 0;
}

EXPORT int nvrtcCompileProgram(void* handle, int count, const char* const* options) {
    Program* program;
    {
        Lock lock(state());
        program = program_of(handle, "nvrtcCompileProgram");
    }
    if (!program) return NVRTC_INVALID_PROGRAM;
    int target = 52;
    for (int i = 0; i < count; ++i) {
        const std::string option = options[i];
        const int real = target_of(option, "--gpu-architecture=sm_");
        const int virt = target_of(option, "--gpu-architecture=compute_");
        if (real || virt) {
            target = real + virt;
            program->is_virtual = virt != 0;
            const bool known = std::count(std::begin(ARCHITECTURES), std::end(ARCHITECTURES), target) != 0;
            if (!known) return refuse(NVRTC_INVALID_OPTION, "nvrtcCompileProgram: %s", option.c_str());
        } else if (option != "--std=c++17" && option != "--prec-div=false") {
            return refuse(NVRTC_INVALID_OPTION, "nvrtcCompileProgram: %s", option.c_str());
        }
    }
    program->compiled = built(*program, target);
    if (!program->compiled) return NVRTC_COMPILATION;
    if (program->is_virtual) {
        std::string text = "// Intermediate code of version " + std::to_string(VERSION[0] * 1000 + VERSION[1] * 10) + "\n";
        for (unsigned char byte : program->code) {
            text += "0123456789abcdef"[byte / 16];
            text += "0123456789abcdef"[byte % 16];
        }
        program->code = text;
    }
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcGetProgramLogSize(void* handle, size_t* size) {
    Lock lock(state());
    const Program* program = program_of(handle, "nvrtcGetProgramLogSize");
    if (!program) return NVRTC_INVALID_PROGRAM;
    *size = program->log.size() + 1;
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcGetProgramLog(void* handle, char* log) {
    Lock lock(state());
    const Program* program = program_of(handle, "nvrtcGetProgramLog");
    if (!program) return NVRTC_INVALID_PROGRAM;
    std::memcpy(log, program->log.c_str(), program->log.size() + 1);
    return NVRTC_SUCCESS;
}

// Machine code is made for a real architecture alone.
EXPORT int nvrtcGetCUBINSize(void* handle, size_t* size) {
    Lock lock(state());
    const Program* program = program_of(handle, "nvrtcGetCUBINSize");
    if (!program || !program->compiled) return NVRTC_INVALID_PROGRAM;
    *size = program->is_virtual ? 0 : program->code.size();
    if (program->is_virtual) broken("nvrtcGetCUBINSize: the architecture is virtual");
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcGetCUBIN(void* handle, char* code) {
    Lock lock(state());
    const Program* program = program_of(handle, "nvrtcGetCUBIN");
    if (!program || !program->compiled || program->is_virtual) return NVRTC_INVALID_PROGRAM;
    std::memcpy(code, program->code.data(), program->code.size());
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcGetPTXSize(void* handle, size_t* size) {
    Lock lock(state());
    const Program* program = program_of(handle, "nvrtcGetPTXSize");
    if (!program || !program->compiled) return NVRTC_INVALID_PROGRAM;
    if (!program->is_virtual)
        return refuse(NVRTC_INTERNAL, "nvrtcGetPTXSize: this stand-in makes it for virtual architectures alone");
    *size = program->code.size() + 1;
    return NVRTC_SUCCESS;
}

EXPORT int nvrtcGetPTX(void* handle, char* code) {
    Lock lock(state());
    const Program* program = program_of(handle, "nvrtcGetPTX");
    if (!program || !program->compiled || !program->is_virtual) return NVRTC_INVALID_PROGRAM;
    std::memcpy(code, program->code.c_str(), program->code.size() + 1);
    return NVRTC_SUCCESS;
}
