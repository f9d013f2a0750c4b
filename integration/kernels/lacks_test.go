package main

import (
	"maps"
	"strings"
	"testing"

	"github.com/dnstrace/dnstrace/integration/kernels/feature"
)

func TestJudge(t *testing.T) {
	asListed := map[feature.Feature]feature.Verdict{}
	for _, f := range feature.All {
		asListed[f] = feature.Proven
	}
	asListed[feature.TCP] = feature.Absent
	for _, tc := range []struct {
		name   string
		change func(map[feature.Feature]feature.Verdict)
		want   string // in the error; empty: none
	}{
		{"as listed", func(map[feature.Feature]feature.Verdict) {}, ""},
		{"absent and not listed", func(m map[feature.Feature]feature.Verdict) { m[feature.IPVS] = feature.Absent }, string(feature.IPVS)},
		{"listed and present", func(m map[feature.Feature]feature.Verdict) { m[feature.TCP] = feature.Proven }, string(feature.TCP)},
		{"not tested", func(m map[feature.Feature]feature.Verdict) { delete(m, feature.Lookup) }, string(feature.Lookup)},
	} {
		found := maps.Clone(asListed)
		tc.change(found)
		err := judge(found, []lack{{feature.TCP, "of old"}})
		if (err != nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, expected %q", tc.name, err, tc.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	found := verdicts("=== RUN TestLookup\r\nFEATURE PROVEN lookups over UDP\r\n--- PASS\r\nFEATURE ABSENT lookups over TCP\r\n")
	if len(found) != 2 || found[feature.Lookup] != feature.Proven || found[feature.TCP] != feature.Absent {
		t.Errorf("%v", found)
	}
}

func TestLacksOf(t *testing.T) {
	if list, err := lacksOf("amd64", "6.1.0-50-cloud-amd64"); err != nil || len(list) != 4 {
		t.Errorf("%v, %v", list, err)
	}
	if _, err := lacksOf("amd64", "6.13.1"); err == nil {
		t.Error("no error for a kernel without a list")
	}
}
