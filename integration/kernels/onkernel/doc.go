// Package onkernel holds tests of the real tracer that need no more than a kernel:
// no lab, no CoreDNS, no distribution. `make test-kernels` runs them in a virtual
// machine of each kernel; where else tests are run, they run on the kernel there.
package onkernel
