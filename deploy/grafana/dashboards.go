package main

import (
	"fmt"
	"strings"
)

// The queries of Prometheus are those of deploy/prometheus/recording.yaml, written
// out: a dashboard should work without the rules, and with any range.

// client names a client in LogQL: its pod, else its address and program.
const client = ` | json ns="client.namespace", client_pod="client.pod", ip="exchange.client_ip", process="client.process", outcome, rcode, took="duration_seconds"` +
	" | label_format client=`{{ if .client_pod }}{{ .ns }}/{{ .client_pod }}{{ else }}{{ .ip }} {{ .process }}{{ end }}`"

// traces selects the whole lookups, and the upstream queries whose lookup is not known.
const traces = `{job="dnstrace"} | record="trace"`

// ofClients selects the lookups of clients alone.
const ofClients = traces + " != `\"role\":\"upstream\"`"

// quantile comes from native histograms where Prometheus takes those (it then leaves
// the classic ones out), else from classic ones.
func quantile(q, metric, matcher, by string) string {
	labels := strings.Trim(by+", le", ", ")
	return fmt.Sprintf("histogram_quantile(%[1]s, sum by (%[4]s) (rate(%[2]s{%[3]s}[$__rate_interval]))) or histogram_quantile(%[1]s, sum by (%[5]s) (rate(%[2]s_bucket{%[3]s}[$__rate_interval])))",
		q, metric, matcher, by, labels)
}

func lookups() *dashboard {
	const own = `client!="remote"`
	return &dashboard{
		uid: "dnstrace-lookups", title: "DNS: lookups and failures",
		description: "What the clients of this cluster experience, as the tracers see it on the wire.",
		rows: [][]panel{
			{
				number("Lookups", "reqps", "Lookups of clients, each counted once.", `sum(rate(dnstrace_lookups_total{`+own+`}[$__rate_interval]))`),
				number("Without a response", "percentunit", "Alert DNSTraceLookupsUnanswered above 1 %.", `sum(rate(dnstrace_lookups_total{`+own+`,outcome!~"answered|refused"}[$__rate_interval])) / (sum(rate(dnstrace_lookups_total{`+own+`}[$__rate_interval])) > 0)`),
				number("SERVFAIL", "percentunit", "Alert DNSTraceServfailHigh above 3 %.", `sum(rate(dnstrace_responses_total{`+own+`,rcode="SERVFAIL"}[$__rate_interval])) / (sum(rate(dnstrace_responses_total{`+own+`}[$__rate_interval])) > 0)`),
				number("Slowest of a hundred", "s", "The 99th percentile of the time that clients wait. Alert DNSTraceLatencyHigh above 1 s.", quantile("0.99", "dnstrace_lookup_duration_seconds", own, "")),
			}, {
				graph("Lookups by outcome", "reqps", "", query{`sum by (outcome) (rate(dnstrace_lookups_total{` + own + `}[$__rate_interval]))`, "{{outcome}}"}),
				graph("Responses by code", "reqps", "", query{`sum by (rcode) (rate(dnstrace_responses_total{` + own + `}[$__rate_interval]))`, "{{rcode}}"}),
			}, {
				graph("What clients wait", "s", "From the query at the client to the response at the client.",
					query{quantile("0.5", "dnstrace_lookup_duration_seconds", own, ""), "p50"},
					query{quantile("0.99", "dnstrace_lookup_duration_seconds", own, ""), "p99"}),
				graph("What CoreDNS takes, by what its cache said", "s", "The 99th percentile, as CoreDNS measures it.", query{quantile("0.99", "dnstrace_server_duration_seconds", "", "cache"), "{{cache}}"}),
			}, {
				graph("Packets that the kernel dropped", "pps", "Which way the packet went, and the kernel's reason.", query{`sum by (query, message, reason) (rate(dnstrace_drops_total[$__rate_interval]))`, "{{query}} {{message}} {{reason}}"}),
				graph("Findings", "short", "What the tracers found wrong, by cause.", query{`sum by (code) (rate(dnstrace_findings_total[$__rate_interval])) > 0`, "{{code}}"}),
			}, {
				lines("Lookups that failed", "Open a line for its trace id: the dashboard `DNS: one lookup` shows it.", ofClients+` | json outcome, rcode, ip="exchange.client_ip", summary="diagnosis[0].summary" | (outcome!="answered" or rcode=~"SERVFAIL|REFUSED") | line_format `+"`{{.ip}} {{.qname}} {{.outcome}} {{.rcode}} {{.summary}}`"),
			},
		},
	}
}

func clients() *dashboard {
	byClient := func(filter string) string {
		return `topk(20, sum by (client) (count_over_time(` + ofClients + client + filter + ` [$__range])))`
	}
	took := func(of string) string {
		return of + ofClients + client + ` | took!="" | unwrap took [$__range]) by (client)`
	}
	return &dashboard{
		uid: "dnstrace-clients", title: "DNS: who suffers",
		description: "Timeouts, latency and volume by client: its pod, else its address and program. From the records in Loki, which with deploy/base are the lookups with a finding, and of all lookups from Prometheus where the tracers run with --metrics-labels pod.",
		rows: [][]panel{
			{
				table(fromLoki, "Timeouts", "short", "Lookups without a response.", query{byClient(` | outcome!="answered"`), ""}),
				table(fromLoki, "Errors and missing names", "short", "Responses other than NOERROR, by code.", query{`topk(20, sum by (client, rcode) (count_over_time(` + ofClients + client + ` | rcode!="" | rcode!="NOERROR" [$__range])))`, ""}),
				table(fromLoki, "Volume", "short", "Lookups.", query{byClient(""), ""}),
			}, {
				table(fromLoki, "Latency: mean", "s", "", query{took(`avg_over_time(`), ""}),
				table(fromLoki, "Latency: worst of a hundred", "s", "", query{took(`quantile_over_time(0.99, `), ""}),
				table(fromLoki, "Latency: worst", "s", "", query{took(`max_over_time(`), ""}),
			}, {
				graph("Lookups", "reqps", "All of them, whatever is logged. Needs --metrics-labels pod.", query{`topk(10, sum by (namespace, pod, client_ip) (rate(dnstrace_client_lookups_total[$__rate_interval])))`, "{{namespace}}/{{pod}} {{client_ip}}"}),
				graph("Lookups without a response", "reqps", "Needs --metrics-labels pod.", query{`topk(10, sum by (namespace, pod, client_ip) (rate(dnstrace_client_lookups_total{result="unanswered"}[$__rate_interval])))`, "{{namespace}}/{{pod}} {{client_ip}}"}),
				graph("Mean latency", "s", "Needs --metrics-labels pod.", query{`topk(10, sum by (namespace, pod, client_ip) (rate(dnstrace_client_duration_seconds_sum[$__rate_interval])) / (sum by (namespace, pod, client_ip) (rate(dnstrace_client_duration_seconds_count[$__rate_interval])) > 0))`, "{{namespace}}/{{pod}} {{client_ip}}"}),
			}, {
				table(fromLoki, "Names that do not exist", "short", "Often the suffixes of a search path.", query{`topk(20, sum by (client, qname) (count_over_time(` + ofClients + client + ` | rcode="NXDOMAIN" [$__range])))`, ""}),
				table(fromLoki, "Lookups of one call", "short", "How many lookups a call of getaddrinfo made, where it made more than two.", query{`topk(20, sum by (resolution) (count_over_time(` + ofClients + ` | json resolution | resolution!="" [$__range])) > 2)`, ""}),
			}, {
				lines("Lookups without a response, and where they ended", "", ofClients+client+` | outcome!="answered" | json message="exchange.drops[0].message", reason="exchange.drops[0].reason", where="exchange.drops[0].where", netns="exchange.drops[0].netns_name", summary="diagnosis[0].summary" | line_format `+"`{{.client}} {{.qname}} {{.summary}} {{.message}} {{.reason}} {{.where}} {{.netns}}`"),
			},
		},
	}
}

func upstreams() *dashboard {
	return &dashboard{
		uid: "dnstrace-upstreams", title: "DNS: upstream health",
		description: "The servers that CoreDNS asks.",
		rows: [][]panel{
			{
				table(fromPrometheus, "Share of attempts that failed", "percentunit", "Alert DNSTraceUpstreamDown above 50 %.", query{`sum by (upstream) (rate(dnstrace_upstream_attempts_total{result!="ok"}[$__range])) / (sum by (upstream) (rate(dnstrace_upstream_attempts_total[$__range])) > 0)`, ""}),
				graph("Attempts by result", "reqps", "", query{`sum by (upstream, result) (rate(dnstrace_upstream_attempts_total[$__rate_interval]))`, "{{upstream}} {{result}}"}),
			}, {
				graph("Time to answer: half of them", "s", "", query{quantile("0.5", "dnstrace_upstream_duration_seconds", "", "upstream"), "{{upstream}}"}),
				graph("Time to answer: worst of a hundred", "s", "Alert DNSTraceUpstreamSlow above 0.5 s.", query{quantile("0.99", "dnstrace_upstream_duration_seconds", "", "upstream"), "{{upstream}}"}),
			}, {
				graph("Findings about upstreams", "short", "", query{`sum by (code) (rate(dnstrace_findings_total{code=~"upstream-.*|slow-upstream"}[$__rate_interval]))`, "{{code}}"}),
				table(fromLoki, "Responses of upstreams by code", "short", "As seen on the wire.", query{`sum by (upstream, outcome, rcode) (count_over_time({job="dnstrace"} | record="exchange" | json process="client.process", upstream="server_ip", outcome, rcode | process="coredns" [$__range]))`, ""}),
			}, {
				lines("Lookups that suffered from an upstream", "", ofClients+" |~ `\"code\":\"(upstream-(timeout|error|unhealthy)|slow-upstream)\"` | json summary=\"diagnosis[0].summary\" | line_format `{{.qname}} {{.summary}}`"),
			},
		},
	}
}

func lookup() *dashboard {
	return &dashboard{
		uid: "dnstrace-lookup", title: "DNS: one lookup",
		description: "Everything that was recorded of one lookup, by its trace id: in Loki, and as spans in Tempo or Jaeger under the same id. `dnstrace explain --loki URL TRACE-ID` draws it.",
		variables: []any{
			object{"name": "trace_id", "type": "textbox", "label": "trace id", "query": ""},
			object{"name": "tempo", "type": "datasource", "query": "tempo", "label": "Tempo", "refresh": 1},
			object{"name": "jaeger", "type": "datasource", "query": "jaeger", "label": "Jaeger", "refresh": 1},
		},
		rows: [][]panel{
			{
				lines("What was found", "", traces+` | trace_id="$trace_id" | json outcome, rcode, took="duration_seconds", ip="exchange.client_ip", process="client.process", code="diagnosis[0].code", summary="diagnosis[0].summary", advice="diagnosis[0].advice" | line_format `+"`{{.qname}} {{.outcome}} {{.rcode}} {{.took}}s, asked by {{.ip}} {{.process}}. {{.code}} {{.summary}} {{.advice}}`"),
				panel{
					kind: "table", title: "The same lookup elsewhere", source: fromLoki, unit: "none", height: 10,
					description: "Which nodes and which components wrote records of it. The links open its spans.",
					queries:     []query{{`sum by (trace_id, node, component, record) (count_over_time({job="dnstrace"} | trace_id="$trace_id" [$__range]))`, ""}},
					transformations: []any{
						object{"id": "merge", "options": object{}},
						object{"id": "organize", "options": object{"excludeByName": object{"Time": true}}},
					},
					links: []any{
						spans("Tempo", `{"refId":"A","datasource":{"type":"tempo","uid":"${tempo}"},"queryType":"traceql","query":"${trace_id}"}`),
						spans("Jaeger", `{"refId":"A","datasource":{"type":"jaeger","uid":"${jaeger}"},"query":"${trace_id}"}`),
					},
				},
			}, {
				lines("Every record of it", "The tracer's `trace` holds the exchanges with their path, the upstream queries, and the diagnosis; `query` is what CoreDNS says.", `{job="dnstrace"} | trace_id="$trace_id"`),
			},
		},
	}
}

// spans links to a query of a backend of traces in Grafana's Explore.
func spans(backend, query string) object {
	uid := "${" + strings.ToLower(backend) + "}"
	return object{"title": "Spans of this lookup in " + backend,
		"url": `/explore?schemaVersion=1&panes={"t":{"datasource":"` + uid + `","queries":[` + query + `],"range":{"from":"${__from}","to":"${__to}"}}}`}
}

func tracer() *dashboard {
	return &dashboard{
		uid: "dnstrace-tracer", title: "DNS: the tracers themselves",
		description: "What observing costs, and what it loses.",
		rows: [][]panel{
			{
				graph("CPU time", "percentunit", "Of one core.", query{`rate(process_cpu_seconds_total{job="dnstrace"}[$__rate_interval])`, "{{instance}}"}),
				graph("Memory", "bytes", "", query{`process_resident_memory_bytes{job="dnstrace"}`, "{{instance}}"}, query{`dnstrace_history_bytes`, "{{instance}} finished traces"}),
			}, {
				graph("Packets lost", "pps", "What found a full ring, by hook. Alert DNSTraceEventsLost.", query{`sum by (instance, hook) (rate(dnstrace_hook_lost_events_total[$__rate_interval]))`, "{{instance}} {{hook}}"}),
				graph("Records lost", "short", "Alert DNSTraceRecordsLost.", query{`sum by (instance, output) (rate(dnstrace_output_records_dropped_total[$__rate_interval]))`, "{{instance}} {{output}}"}, query{`sum by (instance, reason) (rate(dnstrace_plugin_records_refused_total[$__rate_interval]))`, "{{instance}} from CoreDNS: {{reason}}"}),
			}, {
				graph("Tables", "percentunit", "How full. Alert DNSTraceTableFull.", query{`dnstrace_table_bytes{table="exchanges"} / dnstrace_table_limit_bytes`, "{{instance}} exchanges"}, query{`dnstrace_table_bytes{table="traces"} / dnstrace_table_limit_bytes`, "{{instance}} traces"}, query{`dnstrace_history_bytes / dnstrace_history_limit_bytes`, "{{instance}} finished"}),
				graph("Queues", "short", "", query{`dnstrace_plugin_records_queued`, "{{instance}} from CoreDNS"}, query{`dnstrace_output_records_queued`, "{{instance}} to {{output}}"}),
			}, {
				graph("Packets", "pps", "Once for every device that they passed.", query{`rate(dnstrace_events_total[$__rate_interval])`, "{{instance}}"}, query{`rate(dnstrace_shed_events_total[$__rate_interval])`, "{{instance}} left out"}),
				graph("Share of the lookups that is reported", "percentunit", "Below 1 where a tracer cannot follow all. Alert DNSTraceLookupsLeftOut.", query{`dnstrace_reported_share`, "{{instance}}"}),
				graph("API server", "short", "1 where the names of pods and Services are up to date. Alert DNSTraceNamesStale.", query{`dnstrace_kubernetes_synced`, "{{instance}}"}),
				graph("Exchanges and traces", "short", "", query{`sum by (instance, outcome) (rate(dnstrace_exchanges_total[$__rate_interval]))`, "{{instance}} exchanges {{outcome}}"}, query{`rate(dnstrace_traces_total[$__rate_interval])`, "{{instance}} traces"}),
			},
		},
	}
}
