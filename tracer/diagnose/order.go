package diagnose

import (
	"cmp"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// Order sorts the findings of a lookup, or of a call, so that the cause comes first: it is
// what a person reads, and acts on. That the client gave up comes after what took so long, and
// what only costs time last; of others the order of the rules stays. What is in doubt comes
// after what is not.
func Order(all []trace.Finding) {
	slices.SortStableFunc(all, func(a, b trace.Finding) int {
		return cmp.Or(cmp.Compare(place(&a), place(&b)), compareDoubt(&a, &b))
	})
}

// place is how near a finding is to the cause.
func place(f *trace.Finding) int {
	switch f.Code {
	case SearchPathShadowed: // whatever made the suffix fail, the name was not asked
		return 0
	case ClientGaveUp: // something took that long
		return 2
	case Retransmission, TruncatedRetry, SearchPathAmplification, NXDomainStorm:
		return 3
	}
	return 1
}

func compareDoubt(a, b *trace.Finding) int {
	switch {
	case a.InDoubt == b.InDoubt:
		return 0
	case a.InDoubt:
		return 1
	}
	return -1
}

// endedBy puts what the upstream answered that ended a lookup before the attempts that failed
// ahead of it: these cost time, and are not why the client got that code.
func endedBy(t *trace.Trace, all []trace.Finding) {
	n := len(t.Upstreams)
	if n == 0 || t.Upstreams[n-1].Failed() || !errorCode(t.RCode) {
		return
	}
	silent := slices.IndexFunc(all, func(f trace.Finding) bool { return f.Code == UpstreamTimeout })
	if silent < 0 {
		return
	}
	slices.SortStableFunc(all[silent:], func(a, b trace.Finding) int {
		return cmp.Compare(isAnswer(&b), isAnswer(&a))
	})
}

func isAnswer(f *trace.Finding) int {
	if f.Code == UpstreamError {
		return 1
	}
	return 0
}
