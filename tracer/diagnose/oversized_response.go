package diagnose

import (
	"fmt"

	"github.com/dnstrace/dnstrace/trace"
)

// oversizedResponse finds a response over UDP that is larger than the client said it takes
// (RFC 6891, section 6.2.5; 512 bytes without EDNS). Proof: its size on the wire beside the
// advertised one. What the path does not let through has a code of its own.
func oversizedResponse(_ *memory, t *trace.Trace) []trace.Finding {
	var findings []trace.Finding
	for _, s := range subjects(t) {
		ex := s.exchange
		if ex.Protocol != "udp" || ex.ResponseSize == nil || ex.BufSize == 0 || *ex.ResponseSize <= ex.BufSize {
			continue
		}
		findings = append(findings, trace.Finding{
			Code:     OversizedResponse,
			Summary:  fmt.Sprintf("The response to %s has %d bytes; its receiver takes at most %d.", s.name(), *ex.ResponseSize, ex.BufSize),
			Evidence: []string{fmt.Sprintf("response of %d bytes over UDP, advertised size %d bytes, truncated: %t", *ex.ResponseSize, ex.BufSize, ex.Truncated)},
			Advice:   fmt.Sprintf("Clients may discard it: have %s truncate it (TC), or let clients take more (`options edns0`).", server(ex)),
		})
	}
	return findings
}
