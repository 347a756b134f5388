// What a compiled kernel and the driver's stand-in share.
#pragma once

// A kernel of a module: its parameters, and a call of one thread.
struct Entry {
    const char* name;
    bool syncs;
    unsigned count;
    const unsigned* sizes;
    void (*call)(void** values);
};
