package dnstrace

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"

	"github.com/miekg/dns"
	ot "github.com/opentracing/opentracing-go"
	otext "github.com/opentracing/opentracing-go/ext"
)

func init() {
	// A plugin that goes on with a query after it has returned, in a goroutine of its own.
	behaviours["late"] = func(next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		go func() {
			if s := ot.SpanFromContext(ctx); s != nil {
				attempting(ctx, "192.0.2.1:53").Finish()
				s.Finish()
			}
			_, _ = plugin.NextOrFailure(customName, next, ctx, w, r.Copy())
		}()
		return dns.RcodeSuccess, nil
	}
	// A plugin that passes on a copy of the query.
	behaviours["copy"] = func(next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		return plugin.NextOrFailure(earlyName, next, ctx, w, r.Copy())
	}
}

// A plugin that answers when the query is over for us races with nothing.
func TestAnswersLate(t *testing.T) {
	s := start(t, `.:0 {
		bind 127.0.0.1
		dnstrace {
			output file $RECORDS
		}
		cache
		`+customName+` late
		whoami
	}`)
	const queries = 200
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			c := &dns.Client{Timeout: 5 * time.Second}
			for range queries / 4 {
				if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("example.org.", dns.TypeA), s.addr); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	for _, r := range s.wait(queries) {
		if q := r.(*trace.Query); q.Outcome != trace.OutcomeAnswered && q.Outcome != trace.OutcomeNoResponse {
			t.Errorf("%s", q.AppendJSON(nil))
		}
	}
}

// A cache that refreshes while its clients get answers races with nothing.
func TestRefreshesUnderLoad(t *testing.T) {
	a := new(aging)
	s := a.start(t, "serve_stale 1h immediate\n prefetch 1 1m 90%")
	var clients sync.WaitGroup
	end := time.Now().Add(expired + 500*time.Millisecond)
	for range 4 {
		clients.Go(func() {
			c := &dns.Client{Timeout: 5 * time.Second}
			for time.Now().Before(end) {
				if _, _, err := c.Exchange(new(dns.Msg).SetQuestion("example.org.", dns.TypeA), s.addr); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
}

// A query of which a plugin before us passes on a copy is recorded, with metadata too.
func TestCopyBeforeUs(t *testing.T) {
	for _, md := range []string{"", "metadata"} {
		s := start(t, ".:0 {\n bind 127.0.0.1\n "+md+"\n "+earlyName+" copy\n dnstrace {\n output file $RECORDS\n }\n whoami\n}")
		s.ask("example.org.", dns.TypeA)
		if q := s.query(1); q.QName != "example.org." || q.AnsweredBy != "whoami" {
			t.Errorf("%s", q.AppendJSON(nil))
		}
	}
}

// What a plugin keeps of a query, and uses when that is over, changes nothing in its record.
func TestKeptChangesNothing(t *testing.T) {
	r := new(dns.Msg).SetQuestion("example.org.", dns.TypeA)
	var late []func()
	keeping := custom{name: customName, Next: answering{new(dns.Msg).SetReply(r)}, do: func(next plugin.Handler, ctx context.Context, w dns.ResponseWriter, r *dns.Msg) (int, error) {
		kept := attempting(ctx, "192.0.2.1:53")
		late = append(late, func() {
			attempting(ctx, "192.0.2.2:53").Finish()
			otext.LogError(kept, context.DeadlineExceeded)
			kept.Finish()
			_ = w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure))
			if _, err := plugin.NextOrFailure(customName, next, ctx, w, r); err != nil {
				t.Error(err)
			}
		})
		return plugin.NextOrFailure(customName, next, ctx, w, r)
	}}
	var e encoder
	for _, others := range [][]plugin.Plugin{nil, {beforeAny}} {
		late = nil
		rec := recorded(t, traced(t, keeping, false, others...), r.Copy())
		before := string(e.append(nil, rec))
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(late[0])
		}
		wg.Wait()
		if after := string(e.append(nil, rec)); after != before || rec.attempts[0].took != open {
			t.Errorf("before\n%s\nafter\n%s", before, after)
		}
	}
}
