package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/integration/lab"
)

// A getaddrinfo call of glibc asks for two types under every suffix of its
// search path: explain lists them under one head, as one call of the program, and draws one.
func TestExplainShowsACallAsOne(t *testing.T) {
	r := newRig(t)
	ctx := context.Background()
	resolv := fmt.Sprintf("nameserver %s\nsearch demo.call.test call.test\noptions ndots:5\n", lab.ServiceV4.Addr())
	if _, err := r.Run(ctx, lab.Spec{Name: "getent", Host: "client-a", Path: "getent", Args: []string{"ahosts", "www.call.test"}, ResolvConf: resolv}); err != nil {
		t.Fatal(err)
	}
	r.traces("www.call.test.demo.call.test.", 2)
	out, err := r.Dnstrace(ctx, "explain", "--api", r.APISocket(), "www.call.test.demo.call.test")
	if err != nil {
		t.Fatal(err)
	}
	wantAll(t, out, "ONE CALL, ", "www.call.test.demo.call.test.", "AAAA", "--full draws ", "getent")
	if n := strings.Count(out, "━━ "); n != 1 {
		t.Errorf("%d lookups are drawn:\n%s", n, out)
	}
	if out, err = r.Dnstrace(ctx, "explain", "--full", "--api", r.APISocket(), "www.call.test.demo.call.test"); err != nil {
		t.Fatal(err)
	}
	wantAll(t, out, "━━ 1 of ", "━━ 2 of ")

	// A trace id means one lookup, and json its record.
	out, err = r.Dnstrace(ctx, "explain", "--api", r.APISocket(), r.traces("www.call.test.demo.call.test.", 2)[0].TraceID.String())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "ONE CALL") {
		t.Errorf("one lookup:\n%s", out)
	}
	out, err = r.Dnstrace(ctx, "explain", "--api", r.APISocket(), "www.call.test.demo.call.test", "-o", "json")
	if err != nil || strings.Count(out, "\n") != 1 {
		t.Errorf("json: %v\n%s", err, out)
	}
}
