package dnstrace

import (
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/trace/recordfile"
	"github.com/dnstrace/dnstrace/trace/trustedpath"
)

const (
	defaultBuffer = 8192
	// maxBuffer bounds the memory of a blocked output to some gigabytes: a record takes about 2 kB.
	maxBuffer = 1 << 20
	// defaultSlow is the usual limit of what people call slow: half a second is far beyond any answer of a
	// healthy upstream, and below every client's timeout.
	defaultSlow = 500 * time.Millisecond
	// maxUnixPath is what sun_path of a socket address holds (unix(7)), without the zero byte at its end.
	maxUnixPath = 107
)

// expected says what each property takes.
var expected = map[string]string{
	"output":      "stdout, stderr, file PATH or unix PATH",
	"stamp":       "off, all or networks such as 10.0.0.0/8 or fd00::/8",
	"accept":      "networks such as 10.0.0.0/8 or fd00::/8",
	"option-code": "a whole number from 1 to 65534 that IANA has not assigned, such as 65500",
	"sample":      "a rate from 0 (failed and slow lookups only) to 1 (every lookup)",
	"slow":        "a duration of 0s or more, such as 500ms",
	"buffer":      "a whole number of records from 1 to 1048576",
}

func init() { plugin.Register(pluginName, setup) }

func setup(c *caddy.Controller) error {
	d, err := parse(c)
	if err != nil {
		return plugin.Error(pluginName, err)
	}
	config := dnsserver.GetConfig(c)
	config.AddPlugin(func(next plugin.Handler) plugin.Handler {
		d.Next = next
		return d
	})
	wrapLater(c, config, d)
	i := instanceOf(c)
	i.blocks = append(i.blocks, d)
	c.OnStartup(func() error {
		d.view = config.ViewName // all plugins of the block are set up
		return nil
	})
	return nil
}

func parse(c *caddy.Controller) (*Dnstrace, error) {
	d := &Dnstrace{
		serverZones: plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys),
		optionCode:  trace.DefaultOptionCode, sample: 1, slow: defaultSlow, buffer: defaultBuffer,
	}
	var properties []string // that were set
	for i := 0; c.Next(); i++ {
		if i > 0 {
			return nil, c.Errf("%s is already in this server block: expected it once, with all its outputs", pluginName)
		}
		args := c.RemainingArgs()
		for _, arg := range args {
			if _, port, err := plugin.SplitHostPort(arg); err != nil || port != "" {
				return nil, c.Errf("%q is no zone: expected a domain name, or a network for its reverse zone, without a port", arg)
			}
		}
		d.zones = plugin.OriginsFromArgsOrServerBlock(args, c.ServerBlockKeys)
		for c.NextBlock() {
			property := c.Val()
			if slices.Contains(properties, property) {
				return nil, c.Errf("%s is already set: expected it once", property)
			}
			if err := d.parseProperty(c, property, c.RemainingArgs()); err != nil {
				return nil, err
			}
			if property != "output" {
				properties = append(properties, property)
			}
		}
	}
	if len(d.configs) == 0 {
		d.configs = []outputConfig{{kind: outputStdout}}
	}
	return d, nil
}

func (d *Dnstrace) parseProperty(c *caddy.Controller, property string, args []string) (err error) {
	var ok bool
	value := strings.Join(args, " ")
	switch property {
	case "output":
		if ok = len(args) > 0; ok {
			return d.parseOutput(c, args)
		}
	case "stamp":
		d.stamp, ok = parseStamp(args)
	case "accept":
		d.accept, ok = parseNetworks(args)
	case "option-code":
		var code uint64
		code, err = strconv.ParseUint(value, 10, 16)
		d.optionCode, ok = uint16(code), !isAssigned(code)
	case "sample":
		d.sample, err = strconv.ParseFloat(value, 64)
		ok = d.sample >= 0 && d.sample <= 1
	case "slow":
		d.slow, err = time.ParseDuration(value)
		ok = d.slow >= 0
	case "buffer":
		d.buffer, err = strconv.Atoi(value)
		ok = d.buffer >= 1 && d.buffer <= maxBuffer
	default:
		return c.Errf("unknown property %q: expected output, stamp, accept, option-code, sample, slow or buffer", property)
	}
	if err != nil || !ok {
		return c.Errf("%s: expected %s", strings.TrimSpace(property+" "+value), expected[property])
	}
	return nil
}

// isAssigned reports whether no option may have this code: IANA has assigned or reserved it ("DNS EDNS0 Option
// Codes (OPT)" of https://www.iana.org/assignments/dns-parameters, as of 2026), so that TRACEPARENT under it
// would be read as something else.
func isAssigned(code uint64) bool {
	return code <= 26 || code == 20292 || code == 26946 || code == 65535
}

// networks is a list of networks that are trusted with something.
type networks []netip.Prefix

func (n networks) contain(a netip.Addr) bool {
	a = a.Unmap().WithZone("") // no prefix contains an address with a zone
	return slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(a) })
}

func parseNetworks(args []string) (n networks, ok bool) {
	for _, arg := range args {
		p, err := netip.ParsePrefix(arg)
		if err == nil && p.Addr().Is4In6() {
			// The addresses that it is compared with are written as IPv4.
			p, err = p.Addr().Unmap().Prefix(p.Bits() - 96)
		}
		if err != nil {
			return nil, false
		}
		n = append(n, p.Masked())
	}
	return n, len(n) > 0
}

// stampPolicy says which upstreams get the option.
type stampPolicy struct {
	all bool
	to  networks
}

func parseStamp(args []string) (p stampPolicy, ok bool) {
	switch strings.Join(args, " ") {
	case "off":
		return p, true
	case "all":
		return stampPolicy{all: true}, true
	}
	p.to, ok = parseNetworks(args)
	return p, ok
}

// Kinds of output.
const (
	outputStdout = "stdout"
	outputStderr = "stderr"
	outputFile   = "file"
	outputUnix   = "unix"
)

// outputConfig is an output as the Corefile names it.
type outputConfig struct {
	kind string
	path string
}

// String returns the output as the Corefile names it, and metrics and the log.
func (o outputConfig) String() string { return strings.TrimSpace(o.kind + " " + o.path) }

// parseOutput adds an output, with an absolute path, and finds out now what would fail later.
func (d *Dnstrace) parseOutput(c *caddy.Controller, args []string) (err error) {
	o := outputConfig{args[0], strings.Join(args[1:], "")}
	switch {
	case len(args) == 1 && (o.kind == outputStdout || o.kind == outputStderr):
	case len(args) == 2 && o.kind == outputFile && o.path != "":
		if !filepath.IsAbs(o.path) {
			o.path = filepath.Join(dnsserver.GetConfig(c).Root, o.path)
		}
		if o.path, err = filepath.Abs(o.path); err != nil {
			return c.Errf("output %s: %v", o, err)
		}
		f, err := recordfile.Open(o.path)
		if err != nil {
			return c.Errf("output %s: expected a file that CoreDNS may create or append to: %v", o, err)
		}
		if err := f.Close(); err != nil {
			return c.Errf("output %s: %v", o, err)
		}
	case len(args) == 2 && o.kind == outputUnix:
		if err := trustedpath.Socket(o.path); err != nil {
			return c.Errf("output unix: %v", err)
		}
		if len(o.path) > maxUnixPath {
			return c.Errf("output unix: the path has %d bytes: expected at most %d, which is what a socket address holds", len(o.path), maxUnixPath)
		}
	default:
		return c.Errf("output %s: expected %s", strings.Join(args, " "), expected["output"])
	}
	if slices.Contains(d.configs, o) {
		return c.Errf("output %s is already there: expected every output once", o)
	}
	d.configs = append(d.configs, o)
	return nil
}
