package diagnose

import (
	"fmt"
	"slices"

	"github.com/dnstrace/dnstrace/trace"
)

// respelled finds an upstream that was asked again because it answered in other upper and
// lower case than it was asked: resolvers that mix it on purpose against forged answers
// (draft-vixie-dnsext-dns0x20) do not take such a response. Proof: one of its responses is
// spelled otherwise, and after that it was asked the same again for the same lookup. What it
// has cached by then it may answer as it is asked.
func respelled(_ *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	var reported []string
	eachUpstream(t.Upstreams, func(first *trace.Upstream) {
		asked, again, wrong := 0, false, []*trace.Exchange{}
		eachUpstream(t.Upstreams, func(u *trace.Upstream) {
			if ex := u.Exchange; ex != nil && first.Exchange != nil && server(ex) == server(first.Exchange) && ex.QName == first.Exchange.QName && ex.QType == first.Exchange.QType {
				again = again || len(wrong) > 0 && wrong[0].Duration != nil && !ex.Time.Before(wrong[0].Time.Add(wrong[0].Duration.Duration()))
				if asked++; ex.Respelled {
					wrong = append(wrong, ex)
				}
			}
		})
		if !again || slices.Contains(reported, server(wrong[0])) {
			return
		}
		reported = append(reported, server(wrong[0]))
		f := trace.Finding{
			Code:    ResponseRejected,
			Summary: fmt.Sprintf("The upstream %s answers in other upper and lower case than it is asked, so it was asked %d times for one answer.", address(first), asked),
			Advice:  "Have the server not mix the case towards this upstream (unbound: `use-caps-for-id`, `caps-exempt`), or mend what rewrites the name there.",
		}
		for _, ex := range wrong {
			f.Evidence = append(f.Evidence, fmt.Sprintf("its query with ID %#04x left from %s port %d, and the response (%s) had the name in another case", ex.ID, ex.ClientIP, ex.ClientPort, orNoCode(ex.RCode)))
		}
		f.Evidence = shortened(f.Evidence)
		findings = append(findings, f)
	})
	return findings
}
