package trace

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func traceparentBytes(n int) []byte {
	b := make([]byte, n)
	for i := 2; i < n; i++ {
		b[i] = byte(i)
	}
	return b
}

func TestParseTraceparent(t *testing.T) {
	full := traceparentBytes(27)
	badVersion := traceparentBytes(27)
	badVersion[0] = 1
	for _, tc := range []struct {
		name string
		data []byte
		want string
		err  string
	}{
		{name: "all", data: full, want: "00-02030405060708090a0b0c0d0e0f1011-1213141516171819-1a"},
		{name: "no flags", data: full[:26], want: "00-02030405060708090a0b0c0d0e0f1011-1213141516171819-00"},
		{name: "no span", data: full[:18], want: "00-02030405060708090a0b0c0d0e0f1011-0000000000000000-00"},
		{name: "empty", data: nil, err: "expected 18, 26 or 27 bytes, got 0"},
		{name: "short", data: full[:17], err: "got 17"},
		{name: "long", data: append(full[:27:27], 0), err: "got 28"},
		{name: "version", data: badVersion, err: "expected version 0, got 1"},
		{name: "zero trace id", data: make([]byte, 27), err: "trace id is zero"},
	} {
		got, err := ParseTraceparent(tc.data)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: got error %v, want %q", tc.name, err, tc.err)
			}
			continue
		}
		if err != nil || got.String() != tc.want {
			t.Errorf("%s: got %s, %v; want %s", tc.name, got, err, tc.want)
		}
		if len(tc.data) == 27 && !bytes.Equal(got.Append(nil), tc.data) {
			t.Errorf("%s: Append gives %x, want %x", tc.name, got.Append(nil), tc.data)
		}
	}
}

func TestFindTraceparent(t *testing.T) {
	option := func(data []byte) dns.EDNS0 { return &dns.EDNS0_LOCAL{Code: DefaultOptionCode, Data: data} }
	for _, tc := range []struct {
		name    string
		options []dns.EDNS0
		found   bool
		err     bool
	}{
		{name: "none"},
		{name: "other option", options: []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65501, Data: traceparentBytes(27)}}},
		{name: "one", options: []dns.EDNS0{option(traceparentBytes(27))}, found: true},
		{name: "two", options: []dns.EDNS0{option(traceparentBytes(27)), option(traceparentBytes(27))}, found: true, err: true},
		{name: "malformed", options: []dns.EDNS0{option([]byte{1})}, found: true, err: true},
	} {
		m := new(dns.Msg)
		m.SetQuestion("example.com.", dns.TypeA)
		if tc.options != nil {
			m.SetEdns0(1232, false)
			m.IsEdns0().Option = tc.options
		}
		_, found, err := FindTraceparent(m, DefaultOptionCode)
		if found != tc.found || (err != nil) != tc.err {
			t.Errorf("%s: found %v, error %v", tc.name, found, err)
		}
	}
}

func FuzzParseTraceparent(f *testing.F) {
	f.Add(traceparentBytes(27))
	f.Add(traceparentBytes(18))
	for _, n := range []int{0, 1, 5, 26, 28, 65535} { // truncated, without flags, too long
		f.Add(append(traceparentBytes(27), make([]byte, 65535)...)[:n])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := ParseTraceparent(data)
		if err != nil {
			return
		}
		again, err := ParseTraceparent(p.Append(nil))
		if err != nil || again != p {
			t.Fatalf("%x: %v does not survive a round trip: %v, %v", data, p, again, err)
		}
	})
}
