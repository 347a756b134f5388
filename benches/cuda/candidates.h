// One way to run a convolution, as either cuDNN interface offers it.
#pragma once
#include <cudnn.h>

#include <memory>

#include "problem.h"

#define CUDNN_CHECK(call)                                                                              \
    do {                                                                                               \
        cudnnStatus_t status_ = (call);                                                                \
        if (status_ != CUDNN_STATUS_SUCCESS) {                                                         \
            std::fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudnnGetErrorString(status_)); \
            std::exit(1);                                                                              \
        }                                                                                              \
    } while (0)

struct Candidate {
    std::string name;
    size_t workspace = 0;
    bool deterministic = false;
    double rough_us = 0;  // from the search: one or a few launches
    std::function<cudnnStatus_t(const Buffers&, void* workspace)> run;
};

struct Search {
    std::vector<Candidate> candidates;  // fastest first
    double ms = 0;                      // what the search cost
    double first_us = 0;                // the graph interface's first choice, without any timing
    int offered = 0;                    // before support, workspace and precision are looked at
};
