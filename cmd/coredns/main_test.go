package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/coredns/coredns/core/dnsserver"
)

func TestInsert(t *testing.T) {
	got, err := insert(dnsserver.Directives)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.Index(got, "dnstrace")
	if got[i-1] != "dnstap" || got[i+1] != "local" || len(got) != len(dnsserver.Directives)+1 {
		t.Errorf("dnstrace is between %s and %s", got[i-1], got[i+1])
	}
	if _, err := insert([]string{"cache"}); err == nil || !strings.Contains(err.Error(), `no "dnstap" directive`) {
		t.Errorf("without dnstap: %v", err)
	}
}
