package otlp

import (
	"net/netip"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"

	"github.com/dnstrace/dnstrace/trace"
)

// attributes of OTLP; each skips what is unknown.
type attributes []*commonpb.KeyValue

func text(key attribute.Key, value string) *commonpb.KeyValue {
	// One piece of memory: a trace has two hundred of them.
	m := new(struct {
		pair  commonpb.KeyValue
		value commonpb.AnyValue
		text  commonpb.AnyValue_StringValue
	})
	m.text.StringValue = sound(value)
	m.value.Value, m.pair.Key, m.pair.Value = &m.text, string(key), &m.value
	return &m.pair
}

func textValue(value string) *commonpb.AnyValue {
	return &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: sound(value)}}
}

// sound makes text valid UTF-8, without which protobuf refuses a message.
func sound(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func (a *attributes) text(key attribute.Key, value string) {
	if value != "" {
		*a = append(*a, text(key, value))
	}
}

func (a *attributes) integer(key attribute.Key, value int64) {
	if value != 0 {
		*a = append(*a, &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}})
	}
}

func (a *attributes) yes(key attribute.Key, value bool) {
	if value {
		*a = append(*a, &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: true}}})
	}
}

func (a *attributes) number(key attribute.Key, value float64) {
	*a = append(*a, &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: value}}})
}

func (a *attributes) seconds(key attribute.Key, value *trace.Seconds) {
	if value != nil {
		a.number(key, value.Duration().Seconds())
	}
}

func (a *attributes) texts(key attribute.Key, values []string) {
	if len(values) == 0 {
		return
	}
	list := new(commonpb.ArrayValue)
	for _, v := range values {
		list.Values = append(list.Values, textValue(v))
	}
	*a = append(*a, &commonpb.KeyValue{Key: string(key), Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_ArrayValue{ArrayValue: list}}})
}

// address adds an address and its port.
func (a *attributes) address(address, port attribute.Key, ip netip.Addr, number uint16) {
	if ip.IsValid() {
		a.text(address, ip.String())
		a.integer(port, int64(number))
	}
}

func (a *attributes) has(key attribute.Key) bool {
	for _, kv := range *a {
		if kv.GetKey() == string(key) {
			return true
		}
	}
	return false
}

// replace sets text, whether or not there is one.
func (a *attributes) replace(key attribute.Key, value string) {
	for _, kv := range *a {
		if kv.GetKey() == string(key) {
			kv.Value = textValue(value)
			return
		}
	}
	a.text(key, value)
}
