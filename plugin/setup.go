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
	"github.com/dnstrace/dnstrace/trace/trustedpath"
)

const (
	defaultBuffer = 8192
	// maxBuffer bounds the memory of a blocked output to some gigabytes: a record takes about 2 kB.
	maxBuffer = 1 << 20
	// defaultSlow is longer than any answer of a healthy upstream takes, and shorter than every client's timeout.
	defaultSlow = 500 * time.Millisecond
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
	later := len(config.Plugin) + 1 // where the plugins after this one begin
	config.AddPlugin(func(plugin.Handler) plugin.Handler {
		d.Next = d.chain(config.Plugin[later:])
		return d
	})
	i := instanceOf(c)
	i.blocks = append(i.blocks, d)
	return nil
}

func parse(c *caddy.Controller) (*Dnstrace, error) {
	d := &Dnstrace{
		serverZones: plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys),
		optionCode:  trace.DefaultOptionCode, sample: 1, slow: defaultSlow, buffer: defaultBuffer,
	}
	var set []string // properties
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
			if slices.Contains(set, property) {
				return nil, c.Errf("%s is already set: expected it once", property)
			}
			if err := d.parseProperty(c, property, c.RemainingArgs()); err != nil {
				return nil, err
			}
			if property != "output" {
				set = append(set, property)
			}
		}
	}
	if len(d.outputs) == 0 {
		if err := d.parseOutput(c, []string{outputStdout}); err != nil {
			return nil, err
		}
	}
	for _, o := range d.outputs {
		o.limit = max(o.limit, d.buffer)
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
		d.stamp.all = value == "all"
		if ok = d.stamp.all || value == "off"; !ok {
			d.stamp.to, ok = parseNetworks(args)
		}
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

// isAssigned reports whether IANA has assigned or reserved an option code ("DNS EDNS0 Option Codes (OPT)" of
// https://www.iana.org/assignments/dns-parameters, as of 2026): others would misread TRACEPARENT under it.
func isAssigned(code uint64) bool {
	return code <= 26 || code == 20292 || code == 26946 || code == 65535
}

// networks is a list of trusted networks.
type networks []netip.Prefix

func (n networks) contain(a netip.Addr) bool {
	a = a.Unmap().WithZone("") // no prefix contains an address with a zone
	return slices.ContainsFunc(n, func(p netip.Prefix) bool { return p.Contains(a) })
}

func parseNetworks(args []string) (n networks, ok bool) {
	for _, arg := range args {
		p, err := netip.ParsePrefix(arg)
		if err == nil && p.Addr().Is4In6() {
			// contain compares it with IPv4 addresses.
			p, err = p.Addr().Unmap().Prefix(p.Bits() - 96)
		}
		if err != nil {
			return nil, false
		}
		n = append(n, p.Masked())
	}
	return n, len(n) > 0
}

// stampPolicy selects the upstreams that get the option.
type stampPolicy struct {
	all bool
	to  networks
}

// Kinds of output.
const (
	outputStdout = "stdout"
	outputStderr = "stderr"
	outputFile   = "file"
	outputUnix   = "unix"
)

// outputConfig is an output in the Corefile.
type outputConfig struct {
	kind string
	path string
}

// String returns the output as in the Corefile, for metrics and the log.
func (o outputConfig) String() string { return strings.TrimSpace(o.kind + " " + o.path) }

// parseOutput adds an output, with an absolute path.
func (d *Dnstrace) parseOutput(c *caddy.Controller, args []string) (err error) {
	config := outputConfig{args[0], strings.Join(args[1:], "")}
	switch {
	case len(args) == 1 && (config.kind == outputStdout || config.kind == outputStderr):
	case len(args) == 2 && config.kind == outputFile && config.path != "":
		if !filepath.IsAbs(config.path) {
			config.path = filepath.Join(dnsserver.GetConfig(c).Root, config.path)
		}
		if config.path, err = filepath.Abs(config.path); err != nil {
			return c.Errf("output %s: %v", config, err)
		}
	case len(args) == 2 && config.kind == outputUnix:
		if err := trustedpath.Socket(config.path); err != nil {
			return c.Errf("output unix: %v", err)
		}
	default:
		return c.Errf("output %s: expected %s", strings.Join(args, " "), expected["output"])
	}
	o, err := instanceOf(c).output(config)
	switch {
	case err != nil:
		return c.Errf("output %s: expected a file that CoreDNS may create or append to: %v", config, err)
	case slices.Contains(d.outputs, o):
		return c.Errf("output %s is already there: expected every output once", config)
	}
	d.outputs = append(d.outputs, o)
	return nil
}
