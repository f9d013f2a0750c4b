package integration

import (
	"testing"

	"github.com/miekg/dns"

	"github.com/dnstrace/dnstrace/integration/lab"
	"github.com/dnstrace/dnstrace/trace"
)

// A response larger than the MTU comes in fragments, of which only the first has
// ports: all are seen, over both versions of IP.
func TestFragmentedResponse(t *testing.T) {
	r := newRig(t)
	for i := range 2 {
		r.Upstream(i).Set("large.test.", lab.Behaviour{Size: 3000})
	}
	for _, tc := range []struct {
		name   string
		server func(l *lab.Lab) lab.Query
	}{
		{"v4.large.test.", func(*lab.Lab) lab.Query { return lab.Query{Server: lab.ServiceV4} }},
		{"v6.large.test.", func(*lab.Lab) lab.Query { return lab.Query{Server: lab.ServiceV6} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			q := tc.server(r.Lab)
			q.Name = tc.name
			q.Message = new(dns.Msg).SetQuestion(tc.name, dns.TypeA)
			q.Message.SetEdns0(4096, false)
			r.answered(q)
			f := r.trace(tc.name).Exchange.Fragments
			if f == nil || f.Message != trace.MessageResponse || !f.Complete || f.Size == nil || *f.Size < 3000 {
				t.Errorf("%+v", f)
			}
		})
	}
}
