// What a compiled kernel begins with: CUDA as the driver's stand-in runs it, and how to call a kernel by its parameters.
#define OWN extern
#include "../common/cuda.h"
#include "entry.h"
#include <utility>

template <auto Kernel>
struct Of;
template <typename... A, void (*Kernel)(A...)>
struct Of<Kernel> {
    static constexpr unsigned count = sizeof...(A);
    static constexpr unsigned sizes[] = {sizeof(A)..., 0};
    template <size_t... I>
    static void spread(void** values, std::index_sequence<I...>) {
        Kernel(*static_cast<A*>(values[I])...);
    }
    static void call(void** values) { spread(values, std::index_sequence_for<A...>{}); }
    static constexpr Entry entry(const char* name, bool syncs) { return {name, syncs, count, sizes, &call}; }
};

// Ends the list of a module.
constexpr Entry LAST = {nullptr, false, 0, nullptr, nullptr};
