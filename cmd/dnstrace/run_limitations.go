package main

import (
	"fmt"

	"github.com/dnstrace/dnstrace/tracer/assemble"
	"github.com/dnstrace/dnstrace/tracer/capture"
)

// limitations says in traces what the kernel does not tell.
func (o *runOptions) limitations(l capture.Limited) (gaps assemble.Limitations) {
	if o.sampleInKernel {
		gaps.Unsampled = fmt.Sprintf("packets of most lookups are left out (--sample %v --sample-in-kernel), also those of an upstream query, which is sampled by itself", o.sample)
	}
	if l.Process {
		gaps.Process = "which process asked is unknown: this kernel does not tell (Linux 5.15 or later does)"
	}
	if l.Reason {
		gaps.Reason = "why the packet was dropped is unknown: this kernel gives no reason (Linux 5.17 or later does)"
	}
	return gaps
}
