// Package insights runs queries of CloudWatch Logs Insights' language over
// events ("CloudWatch Logs Insights query syntax" in the Logs user guide):
// fields, display, filter, parse, stats, sort, limit, dedup and pattern, with
// the usual functions. A Query is parsed once; a Run takes events, newest first, and
// gives rows.
//
// Memory is bounded: rows that are only sorted are cut to the limit as they
// come, and groups and distinct values are counted up to fixed numbers.
//
// What the language has besides (diff, anomaly, join, lookup, SOURCE,
// unmask, and the SQL and PPL dialects) is NotBuilt.
package insights
