//! Forms of the gradient of a weight.
