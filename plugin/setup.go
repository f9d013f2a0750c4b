package dnstrace

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/trace/trustedpath"
)

const (
	defaultBuffer = 8192
	// maxBuffer bounds the memory of a blocked output to about a gigabyte.
	maxBuffer = 1 << 20
	// maxUnixPath is what sun_path of a socket address holds (unix(7)), without
	// the zero byte at its end.
	maxUnixPath = 107
)

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
	c.OnStartup(func() error {
		d.view = config.ViewName // all plugins of the block are set up
		return nil
	})
	parsing.add(c, config, d)
	d.add(c)
	return nil
}

func parse(c *caddy.Controller) (*Dnstrace, error) {
	d := &Dnstrace{serverZones: plugin.OriginsFromArgsOrServerBlock(nil, c.ServerBlockKeys)}
	for i := 0; c.Next(); i++ {
		if i > 0 {
			return nil, c.Errf("%s is already in this server block: expected it once, with all its outputs", pluginName)
		}
		zones, err := parseZones(c, c.RemainingArgs())
		if err != nil {
			return nil, err
		}
		d.zones = zones
		for c.NextBlock() {
			if err := d.parseProperty(c); err != nil {
				return nil, err
			}
		}
	}
	if len(d.zones) == 0 {
		d.zones = d.serverZones
	}
	if len(d.configs) == 0 {
		d.configs = []outputConfig{{kind: outputStdout}}
	}
	if d.buffer == 0 {
		d.buffer = defaultBuffer
	}
	if !d.policy.slowSet {
		d.policy.slow = defaultSlow
	}
	if d.optionCode == 0 {
		d.optionCode = trace.DefaultOptionCode
	}
	return d, nil
}

func parseZones(c *caddy.Controller, args []string) ([]string, error) {
	var zones []string
	for _, arg := range args {
		hosts, port, err := plugin.SplitHostPort(arg)
		switch {
		case err != nil:
			return nil, c.Errf("%q is no zone: expected a domain name or a network for its reverse zone: %v", arg, err)
		case port != "":
			return nil, c.Errf("%q is no zone: expected a domain name without a port", arg)
		}
		for _, host := range hosts {
			zones = append(zones, plugin.Name(host).Normalize())
		}
	}
	return zones, nil
}

func (d *Dnstrace) parseProperty(c *caddy.Controller) error {
	switch property, args := c.Val(), c.RemainingArgs(); property {
	case "output":
		return d.parseOutput(c, args)
	case "sample":
		return d.parseSample(c, args)
	case "slow":
		return d.parseSlow(c, args)
	case "stamp":
		return d.parseStamp(c, args)
	case "accept":
		return d.parseAccept(c, args)
	case "option-code":
		return d.parseOptionCode(c, args)
	case "buffer":
		return d.parseBuffer(c, args)
	default:
		return c.Errf("unknown property %q: expected output, stamp, accept, option-code, sample, slow or buffer", property)
	}
}

func (d *Dnstrace) parseOutput(c *caddy.Controller, args []string) error {
	const expected = "expected stdout, stderr, file PATH or unix PATH"
	if len(args) == 0 {
		return c.Errf("output of what kind? %s", expected)
	}
	o := outputConfig{kind: args[0]}
	switch o.kind {
	case outputStdout, outputStderr:
		if len(args) != 1 {
			return c.Errf("output %s %s: %s takes no argument", o.kind, strings.Join(args[1:], " "), o.kind)
		}
	case outputFile, outputUnix:
		if len(args) != 2 || args[1] == "" {
			return c.Errf("output %s: expected one PATH after it, got %d arguments", o.kind, len(args)-1)
		}
		o.path = args[1]
	default:
		return c.Errf("unknown output %q: %s", o.kind, expected)
	}
	if err := o.check(c); err != nil {
		return err
	}
	for _, other := range d.configs {
		if other == o {
			return c.Errf("output %s is already there: expected every output once", o)
		}
	}
	d.configs = append(d.configs, o)
	return nil
}

// check makes paths absolute and finds out now what would fail later.
func (o *outputConfig) check(c *caddy.Controller) error {
	switch o.kind {
	case outputFile:
		if !filepath.IsAbs(o.path) {
			o.path = filepath.Join(dnsserver.GetConfig(c).Root, o.path)
		}
		abs, err := filepath.Abs(o.path)
		if err != nil {
			return c.Errf("output %s: %v", o, err)
		}
		o.path = abs
		f, err := openFile(o.path)
		if err != nil {
			return c.Errf("output %s: expected a file that CoreDNS may create or append to: %v", o, err)
		}
		return f.close()
	case outputUnix:
		if err := trustedpath.Socket(o.path); err != nil {
			return c.Errf("output unix: %v", err)
		}
		if len(o.path) > maxUnixPath {
			return c.Errf("output unix: the path has %d bytes: expected at most %d, which is what a socket address holds", len(o.path), maxUnixPath)
		}
	}
	return nil
}

func (d *Dnstrace) parseBuffer(c *caddy.Controller, args []string) error {
	switch {
	case d.buffer != 0:
		return c.Errf("buffer is already set to %d: expected it once", d.buffer)
	case len(args) != 1:
		return c.Errf("buffer: expected one number of records, got %d arguments", len(args))
	}
	n, err := strconv.Atoi(args[0])
	if err != nil || n < 1 || n > maxBuffer {
		return c.Errf("buffer %s: expected a whole number of records from 1 to %d", args[0], maxBuffer)
	}
	d.buffer = n
	return nil
}
