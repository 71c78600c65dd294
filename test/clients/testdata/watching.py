"""CloudWatch, Logs and SNS, a day's use."""
import json, urllib.request, base64
from datetime import datetime, timedelta, timezone
from kit import *

cw, logs, sns = client("cloudwatch"), client("logs"), client("sns")


@step
def metrics():
    now = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    dim = [{"Name": "Host", "Value": "a"}]
    cw.put_metric_data(Namespace="Day", MetricData=[{"MetricName": "Load", "Dimensions": dim, "Timestamp": now - timedelta(minutes=m), "Value": float(m), "Unit": "Count"} for m in range(1, 6)])
    eq([m["MetricName"] for m in pages(cw, "list_metrics", "Metrics", Namespace="Day")[0]], ["Load"])
    got = cw.get_metric_statistics(Namespace="Day", MetricName="Load", Dimensions=dim, StartTime=now - timedelta(minutes=10), EndTime=now, Period=600, Statistics=["Sum", "Maximum", "SampleCount"])["Datapoints"]
    eq(sum(p["Sum"] for p in got), 15.0)
    stat = {"Metric": {"Namespace": "Day", "MetricName": "Load", "Dimensions": dim}, "Period": 60, "Stat": "Average"}
    r = cw.get_metric_data(MetricDataQueries=[{"Id": "m", "MetricStat": stat, "ReturnData": False}, {"Id": "e", "Expression": "m*2"}], StartTime=now - timedelta(minutes=10), EndTime=now, ScanBy="TimestampAscending")["MetricDataResults"]
    eq([(x["Id"], x["Values"]) for x in r], [("e", [10.0, 8.0, 6.0, 4.0, 2.0])])
    sql = 'SELECT MAX(Load) FROM SCHEMA("Day", Host) WHERE Host = \'a\' GROUP BY Host ORDER BY AVG() DESC LIMIT 3'
    r = cw.get_metric_data(MetricDataQueries=[{"Id": "q", "Expression": sql, "Period": 60}], StartTime=now - timedelta(minutes=10), EndTime=now, ScanBy="TimestampAscending")["MetricDataResults"]
    eq([(x["Label"], x["Values"]) for x in r], [("a", [5.0, 4.0, 3.0, 2.0, 1.0])])
    refused("InvalidParameterCombination", cw.get_metric_statistics, Namespace="Day", MetricName="Load", StartTime=now, EndTime=now + timedelta(days=100), Period=60, Statistics=["Sum"])


@step
def alarms():
    topic = sns.create_topic(Name="alarm")["TopicArn"]
    args = dict(AlarmName="day-high", Namespace="Day", MetricName="Hot", Statistic="Maximum", Period=10, EvaluationPeriods=1, Threshold=5, ComparisonOperator="GreaterThanThreshold", AlarmActions=[topic])
    refused("ValidationError", cw.put_metric_alarm, **dict(args, Period=7))
    cw.put_metric_alarm(**args)
    eq(cw.describe_alarms(AlarmNames=["day-high"])["MetricAlarms"][0]["StateValue"], "INSUFFICIENT_DATA")
    cw.put_metric_data(Namespace="Day", MetricData=[{"MetricName": "Hot", "Value": 9, "StorageResolution": 1}])
    a = until("the alarm", lambda: cw.describe_alarms(AlarmNames=["day-high"], StateValue="ALARM")["MetricAlarms"], limit=25)[0]
    assert a["StateReason"].startswith("Threshold Crossed"), a["StateReason"]
    cw.set_alarm_state(AlarmName="day-high", StateValue="OK", StateReason="by hand")
    refused("ResourceNotFound", cw.set_alarm_state, AlarmName="none", StateValue="OK", StateReason="x")
    kinds = [h["HistoryItemType"] for h in cw.describe_alarm_history(AlarmName="day-high")["AlarmHistoryItems"]]
    assert {"ConfigurationUpdate", "StateUpdate"} <= set(kinds), kinds
    cw.put_composite_alarm(AlarmName="day-all", AlarmRule='ALARM("day-high")')
    eq([x["AlarmName"] for x in cw.describe_alarms(AlarmTypes=["CompositeAlarm"])["CompositeAlarms"]], ["day-all"])
    cw.delete_alarms(AlarmNames=["day-all"])
    cw.delete_alarms(AlarmNames=["day-high"])
    eq(cw.describe_alarms()["MetricAlarms"], [])
    sns.delete_topic(TopicArn=topic)
    cw.put_dashboard(DashboardName="d", DashboardBody='{"widgets":[]}')
    eq(json.loads(cw.get_dashboard(DashboardName="d")["DashboardBody"]), {"widgets": []})
    cw.delete_dashboards(DashboardNames=["d"])
    refused("ResourceNotFound", cw.get_dashboard, DashboardName="d")


@step
def anomalies():
    now = datetime.now(timezone.utc).replace(second=0, microsecond=0)
    start = now - timedelta(hours=5)
    usual = [{"MetricName": "Visitors", "Timestamp": start + timedelta(minutes=m), "Value": 100.0 + m % 3} for m in range(300)]
    cw.put_metric_data(Namespace="Day", MetricData=usual)
    one = {"Namespace": "Day", "MetricName": "Visitors", "Stat": "Average"}
    refused("InvalidParameterValue", cw.put_anomaly_detector, SingleMetricAnomalyDetector=one, Configuration={"MetricTimezone": "Europe/Atlantis"})
    refused("MissingParameter", cw.put_anomaly_detector)
    cw.put_anomaly_detector(SingleMetricAnomalyDetector=one, Configuration={"MetricTimezone": "Europe/Berlin", "ExcludedTimeRanges": [{"StartTime": start, "EndTime": start + timedelta(minutes=5)}]})
    d = until("the model", lambda: [x for x in pages(cw, "describe_anomaly_detectors", "AnomalyDetectors")[0] if x["StateValue"] == "TRAINED"])[0]
    eq((d["MetricName"], d["SingleMetricAnomalyDetector"]["Stat"], d["Configuration"]["MetricTimezone"]), ("Visitors", "Average", "Europe/Berlin"))
    stat = {"Metric": {"Namespace": "Day", "MetricName": "Visitors"}, "Period": 60, "Stat": "Average"}
    queries = [{"Id": "m1", "MetricStat": stat}, {"Id": "ad1", "Expression": "ANOMALY_DETECTION_BAND(m1, 3)"}]
    r = cw.get_metric_data(MetricDataQueries=queries, StartTime=start, EndTime=now)["MetricDataResults"]
    eq([x["Id"] for x in r], ["m1", "ad1", "ad1"])
    eq((len(r[1]["Values"]), len(r[2]["Values"])), (300, 300))
    assert 90 < r[1]["Values"][0] < 101 < r[2]["Values"][0] < 110, (r[1]["Values"][0], r[2]["Values"][0])
    args = dict(AlarmName="unusual", ComparisonOperator="GreaterThanUpperThreshold", EvaluationPeriods=1, ThresholdMetricId="ad1", Metrics=queries)
    refused("ValidationError", cw.put_metric_alarm, **dict(args, Threshold=1))
    cw.put_metric_alarm(**args)
    cw.put_metric_data(Namespace="Day", MetricData=[{"MetricName": "Visitors", "Timestamp": now - timedelta(minutes=1), "Value": 9000.0}])
    a = until("the alarm", lambda: cw.describe_alarms(AlarmNames=["unusual"], StateValue="ALARM")["MetricAlarms"], limit=25)[0]
    assert a["StateReason"].startswith("Thresholds Crossed: ") and "upper thresholds" in a["StateReason"], a["StateReason"]
    cw.delete_alarms(AlarmNames=["unusual"])
    m2 = dict(queries[0], Id="m2", ReturnData=False)
    math = {"MetricDataQueries": [m2, {"Id": "e", "Expression": "m2 * 2", "ReturnData": True}]}
    cw.put_anomaly_detector(MetricMathAnomalyDetector=math)
    eq([x["MetricMathAnomalyDetector"]["MetricDataQueries"][1]["Expression"] for x in cw.describe_anomaly_detectors(AnomalyDetectorTypes=["METRIC_MATH"])["AnomalyDetectors"]], ["m2 * 2"])
    cw.delete_anomaly_detector(MetricMathAnomalyDetector=math)
    cw.delete_anomaly_detector(SingleMetricAnomalyDetector=one)
    refused("ResourceNotFoundException", cw.delete_anomaly_detector, SingleMetricAnomalyDetector=one)
    eq(cw.describe_anomaly_detectors(AnomalyDetectorTypes=["METRIC_MATH", "SINGLE_METRIC"])["AnomalyDetectors"], [])


@step
def log_events():
    logs.create_log_group(logGroupName="/day/app", tags={"a": "b"})
    refused("ResourceAlreadyExistsException", logs.create_log_group, logGroupName="/day/app")
    refused("ResourceNotFoundException", logs.create_log_stream, logGroupName="/none", logStreamName="s")
    logs.put_retention_policy(logGroupName="/day/app", retentionInDays=7)
    refused("InvalidParameterException", logs.put_retention_policy, logGroupName="/day/app", retentionInDays=8)
    logs.create_log_stream(logGroupName="/day/app", logStreamName="s")
    now = int(time.time() * 1000)
    logs.put_log_events(logGroupName="/day/app", logStreamName="s", logEvents=[{"timestamp": now + i, "message": "line %d %s" % (i, "ERROR" if i % 10 == 0 else "ok")} for i in range(100)])
    evs, n = pages(logs, "filter_log_events", "events", logGroupName="/day/app", filterPattern="ERROR", PaginationConfig={"PageSize": 4})
    eq([e["message"] for e in evs], ["line %d ERROR" % i for i in range(0, 100, 10)])
    first = logs.get_log_events(logGroupName="/day/app", logStreamName="s", startFromHead=True, limit=60)
    second = logs.get_log_events(logGroupName="/day/app", logStreamName="s", startFromHead=True, nextToken=first["nextForwardToken"])
    eq((len(first["events"]), len(second["events"])), (60, 40))
    last = logs.get_log_events(logGroupName="/day/app", logStreamName="s", startFromHead=True, nextToken=second["nextForwardToken"])
    eq((last["events"], last["nextForwardToken"]), ([], second["nextForwardToken"]))
    logs.put_metric_filter(logGroupName="/day/app", filterName="errors", filterPattern="ERROR", metricTransformations=[{"metricName": "Errors", "metricNamespace": "Day", "metricValue": "1"}])
    eq(logs.describe_metric_filters(logGroupName="/day/app")["metricFilters"][0]["filterName"], "errors")
    eq(len(logs.test_metric_filter(filterPattern="[a, b>5]", logEventMessages=["x 3", "x 9"])["matches"]), 1)
    for i in range(7):
        logs.create_log_group(logGroupName="/many/%d" % i)
    eq(len(pages(logs, "describe_log_groups", "logGroups", logGroupNamePrefix="/many/", PaginationConfig={"PageSize": 3})[0]), 7)
    for i in range(7):
        logs.delete_log_group(logGroupName="/many/%d" % i)
    logs.delete_log_group(logGroupName="/day/app")
    refused("ResourceNotFoundException", logs.delete_log_group, logGroupName="/day/app")


@step
def topics():
    arn = sns.create_topic(Name="day", Tags=[{"Key": "a", "Value": "b"}])["TopicArn"]
    eq(sns.create_topic(Name="day", Tags=[{"Key": "a", "Value": "b"}])["TopicArn"], arn)
    refused("InvalidParameter", sns.create_topic, Name="bad name")
    refused("NotFound", sns.publish, TopicArn=arn + "x", Message="m")
    refused("InvalidParameter", sns.subscribe, TopicArn=arn, Protocol="email", Endpoint="not-an-address")
    eq(sns.subscribe(TopicArn=arn, Protocol="email", Endpoint="ann@example.com")["SubscriptionArn"], "pending confirmation")
    eq(sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"][0]["SubscriptionArn"], "PendingConfirmation")
    refused("InvalidParameter", sns.confirm_subscription, TopicArn=arn, Token="nonsense")
    assert sns.publish(TopicArn=arn, Message="hello", Subject="s")["MessageId"]
    r = sns.publish_batch(TopicArn=arn, PublishBatchRequestEntries=[{"Id": "1", "Message": "a"}, {"Id": "2", "Message": "b"}])
    eq([x["Id"] for x in r["Successful"]], ["1", "2"])
    sns.set_topic_attributes(TopicArn=arn, AttributeName="DisplayName", AttributeValue="Day")
    eq(sns.get_topic_attributes(TopicArn=arn)["Attributes"]["DisplayName"], "Day")

    def box():
        r = urllib.request.Request(ENDPOINT + "/_slipway/mailbox")
        r.add_header("Authorization", "Basic " + base64.b64encode((os.environ["AWS_ACCESS_KEY_ID"] + ":" + os.environ["AWS_SECRET_ACCESS_KEY"]).encode()).decode())
        return json.load(urllib.request.urlopen(r, timeout=5))

    mail = until("the mail that asks to confirm", lambda: [m for m in box() if "ann@example.com" in m["to"]])[0]
    assert "Confirmation" in mail["subject"], mail["subject"]
    sns.delete_topic(TopicArn=arn)
    sns.delete_topic(TopicArn=arn)  # again is no error
    eq(sns.list_topics()["Topics"], [])


main()
