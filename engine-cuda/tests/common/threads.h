// Threads of a block take turns; those of kernels that wait for one another have stacks of their own. `cuda.h` comes before it.
#include <csetjmp>
#include <ucontext.h>

constexpr size_t STACK = 1 << 17;
static ucontext_t threads[THREADS];
static char stacks[THREADS * STACK];
static bool alive[THREADS], started[THREADS];
static void (*body)(void*);
static void* argument;

#if defined(__SANITIZE_ADDRESS__)
// A sanitizer wants to know which stack is in use.
#include <sanitizer/common_interface_defs.h>
static ucontext_t scheduler;
static void* fake_of_scheduler;
static void* fakes[THREADS];
static const void* scheduler_stack;
static size_t scheduler_size;

static void entered(void* fake) { __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_size); }

static void to_scheduler(unsigned me) {
    __sanitizer_start_switch_fiber(&fakes[me], scheduler_stack, scheduler_size);
    swapcontext(&threads[me], &scheduler);
    entered(fakes[me]);
}

static void to_thread(unsigned t) {
    __sanitizer_start_switch_fiber(&fake_of_scheduler, stacks + t * STACK, STACK);
    swapcontext(&scheduler, &threads[t]);
    __sanitizer_finish_switch_fiber(fake_of_scheduler, nullptr, nullptr);
}
#else
// Contexts are for the first time; they would keep signal masks, by a call of the system each.
static jmp_buf back, places[THREADS];

static void entered(void*) {}

static void to_scheduler(unsigned me) {
    if (_setjmp(places[me]) == 0) _longjmp(back, 1);
}

static void to_thread(unsigned t) {
    if (_setjmp(back) != 0) return;
    if (started[t]) _longjmp(places[t], 1);
    started[t] = true;
    setcontext(&threads[t]);
}
#endif

OWN void wait_for_others() { to_scheduler(threadIdx.x); }

// A thread goes on with the next block when it is through with one.
static void thread_main() {
    entered(nullptr);
    const unsigned me = threadIdx.x;
    for (;;) {
        body(argument);
        alive[me] = false;
        to_scheduler(me);
    }
}

static void make_threads() {
    for (unsigned t = 0; t < THREADS; ++t) {
        getcontext(&threads[t]);
        threads[t].uc_stack.ss_sp = stacks + t * STACK;
        threads[t].uc_stack.ss_size = STACK;
        threads[t].uc_link = nullptr;
        makecontext(&threads[t], thread_main, 0);
    }
}

// Runs a kernel's threads, block by block. `syncs` says whether they wait for one another.
static void run_blocks(unsigned blocks, bool syncs, void (*kernel)(void*), void* of_kernel) {
    static bool made = false;
    if (syncs && !made) make_threads();
    made = made || syncs;
    for (unsigned block = 0; block < blocks; ++block) {
        blockIdx.x = block;
        if (!syncs) {
            for (threadIdx.x = 0; threadIdx.x < THREADS; ++threadIdx.x) kernel(of_kernel);
            continue;
        }
        body = kernel;
        argument = of_kernel;
        for (bool& one : alive) one = true;
        for (bool any = true; any;) {
            any = false;
            for (unsigned t = 0; t < THREADS; ++t) {
                if (!alive[t]) continue;
                threadIdx.x = t;
                to_thread(t);
                any = true;
            }
        }
    }
}
